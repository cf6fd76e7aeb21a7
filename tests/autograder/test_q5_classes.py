"""Question 5's check: whose job a method is and where a class begins is the source's to say."""

from typing import Any

import pytest

from autograder import CheckFailed, check, registry
from autograder.checks.q5_classes import roles
from autograder.examine import examine
from autograder.suite import open_suite
from course.candidates import METHODS

CHECK = registry.get("q5_classes")
ROLES: dict[str, Any] = CHECK.solution["q5_roles"]
LINES: dict[str, Any] = CHECK.solution["q5_lines"]


def failures(roles: Any = ROLES, lines: Any = LINES) -> list[str]:
    """The headlines of all cases that fail."""
    verdict = examine(CHECK, {"q5_roles": roles, "q5_lines": lines}, open_suite("visible"))
    return [failure.problem.headline for failure in verdict.failures]


def test_the_truth_is_the_sources_and_has_candidates_that_are_nobodys() -> None:
    assert roles() == ROLES
    assert set(METHODS) - set().union(*roles().values()) == {
        "get_attn_backend",
        "set_forward_context",
        "unified_attention_with_output",
    }
    assert sum(map(len, roles().values())) == len(METHODS) - 3  # nobody shares a job


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("backend.py:56", "line 56 is inside the class AttentionBackend (lines 55 to 342); AttentionBackend starts at 55"),
        ("backend.py:271", "line 271 is the method AttentionBackend.validate_configuration"),
        ("backend.py:345", "line 345 is the class AttentionMetadata; AttentionBackend starts at 55"),
        ("backends/flash_attn.py:68", "line 68 is the class FlashAttentionBackend"),
        ("selector.py:55", "AttentionBackend is not in selector.py"),
        ("backend.py:9999", "backend.py has 1034 lines"),
        ("nowhere.py:55", "has no file nowhere.py"),
        ("55", "expected \"file.py:line\", got '55'"),
        (55, 'expected "file:line", the path as short as you like, got an int'),
        (("backend.py", 55), "got a tuple"),
        ("", "is empty"),
    ],
)  # fmt: skip
def test_a_line_that_misses_is_told_what_it_hit(line: Any, words: str) -> None:
    (said,) = failures(lines={**LINES, "AttentionBackend": line})
    assert words in said


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (ROLES["AttentionImpl"] | {"build", "get_name"}, "neither it nor a class derived from it defines build (and so with get_name)"),
        (ROLES["AttentionImpl"] | {"set_forward_context"}, "is a method of none of the three: it is a function of vllm.forward_context"),
        ({"forward"}, "2 more of the candidates are its job"),
        ({"forwards"}, "did you mean forward?"),
        ("forward", "expected a set of words from the list of candidates, got a str"),
        (set(), "is empty"),
        (set(METHODS), "neither it nor a class derived from it defines build"),
    ],
)  # fmt: skip
def test_a_wrong_job_is_told_whose_it_is_not(methods: Any, words: str) -> None:
    (said,) = failures(roles={**ROLES, "AttentionImpl": methods})
    assert words in said


def test_a_missing_class_costs_its_own_points_only() -> None:
    roles_of_two = {name: methods for name, methods in ROLES.items() if name != "AttentionImpl"}
    assert failures(roles=roles_of_two)[0].startswith(
        "q5_roles has no entry for AttentionImpl; its keys are 'AttentionBackend'"
    )
    assert len(failures(roles=roles_of_two)) == 1
    assert len(failures(roles=dict(zip(ROLES, [*ROLES.values()][::-1], strict=True)))) == 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (({}, {}), "this is not answered yet"),
        (({key: set() for key in ROLES}, dict.fromkeys(LINES, "")), "this is not answered yet: fill in q5_roles and q5_lines"),
        (([], LINES), "q5_roles: expected a dict from class to its methods, got a list"),
        ((ROLES, "backend.py:55"), 'q5_lines: expected a dict from class to "file:line", got a str'),
        (({1: {"forward"}}, {}), "one of its keys is no text"),
    ],
)  # fmt: skip
def test_what_is_no_answer_earns_nothing(answer: Any, words: str) -> None:
    with pytest.raises(CheckFailed) as caught:
        check("q5_classes", answer)
    assert words in str(caught.value)
