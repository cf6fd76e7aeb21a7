"""The form of what a worker sends: it is learner's code that may have written it."""

from __future__ import annotations

from typing import Any

from autograder.judge import evidence


def is_question(value: Any, number: int) -> bool:
    """Whether a decoded value is a question that belongs to the request with this number."""
    return type(value) is dict and value.keys() == {"id", "ask"} and value["id"] == number


def is_reply(reply: Any, number: int) -> bool:
    """Whether a decoded value has the form of a reply to the request with this number."""
    if type(reply) is not dict or reply.get("id") != number or type(reply.get("id")) is not int:
        return False
    launches, images = reply.get("launches"), reply.get("images", [])
    if not (type(launches) is dict and len(launches) <= evidence.MAX_NAMES and type(images) is list):
        return False
    if not all(type(name) is str and _is_count(times) for name, times in launches.items()):
        return False
    if not _is_count(reply.get("attention_calls")):
        return False
    error = reply.get("error")
    if error is None:
        return True
    return (
        type(error) is dict
        and all(type(error.get(name)) is str for name in ("type", "message", "line"))
        and type(error.get("missing")) is bool
        and type(error.get("bases")) is list
        and all(type(base) is str for base in error["bases"])
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**40
