"""A mistake in a real Triton kernel is known by the same mistake made in torch; what ran is told apart from what is right."""

import pytest
import torch

import kernels
from autograder import registry
from autograder.examine import examine
from autograder.misconceptions import paged_decode_triton as decode
from autograder.misconceptions.triton_edit import with_kernel
from autograder.suite import open_suite
from autograder.verdict import Verdict

NAME = "paged_online_attention_triton"


def _verdict(*lines: tuple[str, str]) -> Verdict:
    wrong = with_kernel(decode.paged_online_attention_triton, decode._paged_decode_kernel, "test", *lines)
    return examine(registry.get(NAME), {NAME: wrong}, open_suite("visible"))


@pytest.mark.parametrize(
    ("lines", "name", "exact"),
    [
        ((("acc * alpha[:, None] + tl.dot", "acc + tl.dot"),), "acc-not-rescaled", False),  # by tile
        ((('input_precision="ieee") * scale', 'input_precision="ieee")'),), "scale-left-out", True),
        ((("tl.where(l == 0.0, 1.0, l)[:, None]", "l[:, None]"),), "nan-for-an-empty-request", True),
    ],
)
def test_a_kernel_has_the_name_of_its_mistake_in_torch(
    lines: tuple[tuple[str, str], ...], name: str, exact: bool
) -> None:
    verdict = _verdict(*lines)
    assert not verdict.passed
    assert (verdict.misconception, verdict.exact) == (name, exact), verdict.message()


@pytest.mark.skipif(not kernels.INTERPRET, reason="a GPU does not say what a kernel read")
def test_wrong_numbers_come_with_the_read_that_made_them() -> None:
    verdict = _verdict(("held = position < seq_len", "held = position < seq_len + 1"))
    details = " ".join(failure.problem.detail for failure in verdict.failures)
    assert "slots past the end of request" in details
    assert "_paged_decode_kernel reads" in details


def test_nothing_but_nan_is_no_likeness() -> None:
    def answer(query: torch.Tensor, *rest: object) -> torch.Tensor:
        return query * torch.nan

    verdict = examine(
        registry.get("paged_online_attention"), {"paged_online_attention": answer}, open_suite("visible")
    )
    assert not verdict.passed
    assert verdict.misconception is None, verdict.message()


def _bytes_verdict(function: object) -> Verdict:
    return examine(registry.get("kv_bytes"), {NAME: function}, open_suite("visible"))


def test_what_a_compiled_kernel_loads_is_counted_in_a_second_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        kernels, "INTERPRET", False
    )  # as on a GPU: the first run keeps its accesses to itself
    assert _bytes_verdict(decode.paged_online_attention_triton).passed
    verdict = _bytes_verdict(decode.one_head_a_program)
    assert (verdict.passed, verdict.misconception) == (False, "once-per-query-head"), verdict.message()


def test_a_kernel_that_the_interpreter_does_not_take_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime.errors import InterpreterError

    monkeypatch.setattr(kernels, "INTERPRET", False)
    calls = []

    def on_a_gpu_only(*arguments: object) -> torch.Tensor:
        calls.append(arguments)
        if len(calls) % 2 == 0:  # of each case the run that is counted
            raise InterpreterError("NotImplementedError('inline_asm')")
        return decode.paged_online_attention_triton(*arguments)

    message = _bytes_verdict(on_a_gpu_only).message()
    assert "what your kernel loads cannot be counted" in message
    assert "inline_asm" in message
