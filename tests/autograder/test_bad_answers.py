"""Whatever an answer is or does, the learner gets a short sentence that says what is wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from autograder import CheckFailed, UnknownCheck, check, hint, registry

METADATA = registry.get("build_metadata").solution["build_metadata"]
SOFTMAX = registry.get("merge_states").solution


def _changed(**changes: Callable[[torch.Tensor], Any]) -> Callable[..., Any]:
    """build_metadata with some of its entries passed through a function."""

    def build_metadata(*arguments: Any) -> Any:
        metadata = METADATA(*arguments)
        return {**metadata, **{name: change(metadata[name]) for name, change in changes.items()}}

    return build_metadata


def _message(name: str, answer: Any) -> str:
    with pytest.raises(CheckFailed) as caught:
        check(name, answer)
    message = str(caught.value)
    assert len(message.splitlines()) <= 10
    return message


class AlwaysEqual:
    def __eq__(self, other: object) -> bool:
        return True

    def __getattr__(self, name: str) -> "AlwaysEqual":
        return self

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "expected a function, got a NoneType"),
        ({"block_table": 1}, "expected a function, got a dict"),
        (lambda *a: None, "must return a dict, got a NoneType"),
        (lambda *a: {"slot_mapping": torch.zeros(1)}, "lacks block_table, seq_lens, query_start_loc"),
        (lambda *a: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda a: {}, "raised TypeError"),
        (_changed(slot_mapping=lambda t: t.tolist()), "slot_mapping is a list; expected a torch.Tensor"),
        (_changed(slot_mapping=lambda t: t.float()), "slot_mapping has dtype float32; expected int64"),
        (_changed(slot_mapping=lambda t: t[None]), "slot_mapping has the wrong shape"),
        (_changed(slot_mapping=lambda t: t.to("meta")), "slot_mapping is on the device meta; expected cpu"),
        (
            _changed(slot_mapping=lambda t: AlwaysEqual()),
            "slot_mapping is a AlwaysEqual; expected a torch.Tensor",
        ),
        (_changed(block_table=lambda t: t.flatten()), "block_table has the wrong shape"),
        (_changed(seq_lens=lambda t: t.to(torch.bool)), "seq_lens has dtype bool; expected int32"),
    ],
)
def test_wrong_kinds_of_metadata(answer: Any, words: str) -> None:
    assert words in _message("build_metadata", answer)


def test_the_stub_is_told_that_it_is_not_answered() -> None:
    def stub(*arguments: Any) -> Any:
        raise NotImplementedError("Your code here.")

    for name in ("build_metadata", "attend"):
        assert f"{name} is not answered yet" in _message(name, stub)
    assert "not answered yet" in _message("online_softmax_update", (stub, stub))
    assert "not answered yet" in _message("merge_states", (stub, stub, stub))


def test_an_answer_that_leaves_python_is_a_wrong_answer() -> None:
    def leave(*arguments: Any) -> Any:
        raise SystemExit(0)

    assert "raised SystemExit" in _message("build_metadata", leave)


def test_the_learners_own_line_is_named() -> None:
    def build_metadata(block_tables: Any, *rest: Any) -> Any:
        return block_tables[99]

    assert "return block_tables[99]" in _message("build_metadata", build_metadata)


@pytest.mark.parametrize(
    ("update", "words"),
    [
        (lambda state, scores, values: None, "must return the state (m, l, acc), got a NoneType"),
        (lambda state, scores, values: state[:2], "must return the state (m, l, acc), got 2 values"),
        (
            lambda state, scores, values: (state[0], state[1], scores),
            "acc of the returned state has the wrong shape",
        ),
        (lambda state, scores, values: (0.0, 0.0, 0.0), "m of the returned state is a float"),
        (
            lambda state, scores, values: (*state[:2], state[2].half()),
            "acc of the returned state has dtype float16",
        ),
        (lambda state, scores, values: (*state[:2], state[2] + torch.nan), "the output of finalize"),
    ],
)
def test_wrong_kinds_of_state(update: Any, words: str) -> None:
    assert words in _message("online_softmax_update", (update, SOFTMAX["finalize"]))


def test_nan_and_subclasses_and_wrong_shapes_of_an_output() -> None:
    update = SOFTMAX["online_softmax_update"]

    class Lazy(torch.Tensor):
        pass

    def finalize_as(change: Callable[[torch.Tensor], Any]) -> Any:
        return lambda state: change(SOFTMAX["finalize"](state))

    assert "holds NaN" in _message("online_softmax_update", (update, finalize_as(lambda t: t * torch.nan)))
    assert "is a Lazy" in _message(
        "online_softmax_update", (update, finalize_as(lambda t: t.as_subclass(Lazy)))
    )
    assert "wrong shape" in _message("online_softmax_update", (update, finalize_as(lambda t: t[..., :1])))
    assert "on the device meta" in _message(
        "online_softmax_update", (update, finalize_as(lambda t: t.to("meta")))
    )
    assert "must return the state" in _message("merge_states", {**SOFTMAX, "merge_states": lambda a, b: 3})


@pytest.mark.parametrize("answer", [SOFTMAX["merge_states"], (1, 2), [], {"merge_states": 1}])
def test_several_functions_are_asked_for_by_name(answer: Any) -> None:
    assert "takes the 3 functions (online_softmax_update, merge_states, finalize)" in _message(
        "merge_states", answer
    )


def test_a_wrong_update_does_not_cost_the_points_of_merge() -> None:
    broken = {**SOFTMAX, "online_softmax_update": lambda state, scores, values: None}
    check("merge_states", broken)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    for call in (lambda: check("biuld_metadata", METADATA), lambda: hint("biuld_metadata")):
        with pytest.raises(UnknownCheck, match='Did you mean "build_metadata"'):
            call()
    with pytest.raises(UnknownCheck, match="There is no check called 3"):
        check(3, METADATA)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='suite: expected "visible" or "hidden"'):
        check("build_metadata", METADATA, suite="secret")


def test_an_answer_that_cannot_be_run_is_not_blamed_on_a_case() -> None:
    assert "Case:" not in _message("q1_verdicts", {})
    assert "Case:" not in _message("build_metadata", 3)
    assert "Case: prefill of one request. 11 of 11 visible cases fail on " in _message(
        "build_metadata", lambda *a: 3
    )


def test_no_answer_writes_its_own_truth() -> None:
    """Erased values make zeros the truth, if the truth is taken from what the answer was given; now or later."""
    kept = []

    def erase(state: Any, scores: torch.Tensor, values: torch.Tensor) -> Any:
        values.zero_()
        return state

    def keep(state: Any, scores: torch.Tensor, values: torch.Tensor) -> Any:
        kept.append(values)
        return state

    def erase_kept(state: Any) -> torch.Tensor:
        for values in kept:
            values.zero_()
        return torch.zeros_like(state[2])

    now = (erase, lambda a, b: a, lambda state: torch.zeros_like(state[2]))
    assert "changes its input `values` in place" in _message("merge_states", now)
    assert "has wrong values" in _message("merge_states", (keep, lambda a, b: a, erase_kept))
    assert "has wrong values" in _message("online_softmax_update", (keep, erase_kept))
