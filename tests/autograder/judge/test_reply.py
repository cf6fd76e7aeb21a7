"""What a worker sends has the form of a reply, or is none: learner's code may have written it."""

import copy
from typing import Any

import pytest

from autograder.judge import evidence
from autograder.judge.reply import is_question, is_reply

ERROR = {"type": "ValueError", "message": "no", "line": "x = 1", "missing": False, "bases": ["ValueError"]}
REPLY: dict[str, Any] = {
    "id": 7,
    "launches": {"kernel": 3},
    "images": [b""],
    "attention_calls": 0,
    "error": ERROR,
}


def changed(name: str, value: Any) -> dict[str, Any]:
    reply = copy.deepcopy(REPLY)
    *way, last = name.split(".")
    place = reply
    for key in way:
        place = place[key]
    place[last] = value
    return reply


def test_replies() -> None:
    assert is_reply(REPLY, 7)
    assert is_reply(changed("error", None), 7)
    assert is_reply({key: REPLY[key] for key in ("id", "launches", "attention_calls")}, 7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", 8),
        ("id", True),
        ("id", 7.0),
        ("launches", None),
        ("launches", {"kernel": -1}),
        ("launches", {"kernel": True}),
        ("launches", {1: 1}),
        ("launches", {str(i): 1 for i in range(evidence.MAX_NAMES + 1)}),
        ("images", {}),
        ("attention_calls", 2**40),
        ("attention_calls", "0"),
        ("error", []),
        ("error", {}),
        ("error.message", None),
        ("error.line", 1),
        ("error.missing", 0),
        ("error.bases", "ValueError"),
        ("error.bases", [ValueError]),
    ],
)
def test_no_replies(name: str, value: Any) -> None:
    assert not is_reply(changed(name, value), 7)
    assert not any(is_reply(other, 7) for other in (None, 7, [], {}, "id"))


def test_questions() -> None:
    assert is_question({"id": 7, "ask": None}, 7)
    assert not is_question({"id": 8, "ask": None}, 7)
    assert not is_question({"id": 7, "ask": None, "more": 1}, 7)
    assert not is_question([7], 7)
