"""The step that lesson 2 traces: the same output over every backend, and short enough to read."""

import pytest
import torch

from course import one_step
from course.trace import trace
from kernels import reference


@pytest.fixture(scope="module")
def model() -> one_step.SmallAttention:
    return one_step.SmallAttention("PAGED_TORCH")


def test_the_backend_changes_nothing(model: one_step.SmallAttention) -> None:
    expected = one_step.run_step(model)
    assert expected.shape == (sum(one_step.NUM_NEW_TOKENS), one_step.HIDDEN_SIZE)
    assert torch.isfinite(expected).all()
    for backend in ("DENSE_TORCH", "TRITON_ATTN"):
        output = one_step.run_step(one_step.SmallAttention(backend))
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)


def test_the_prompt_attends_to_itself_and_to_nothing_else(model: one_step.SmallAttention) -> None:
    """What dense attention gives for the second request, whose tokens are all new."""
    generator = torch.Generator().manual_seed(1)
    hidden_states = torch.randn(6, one_step.HIDDEN_SIZE, generator=generator)[1:].to(model.o_proj.weight)
    q, k, v = model.qkv_proj(hidden_states).split(model.sizes, dim=-1)
    heads = [part.view(5, -1, one_step.HEAD_SIZE) for part in (q, k, v)]
    attended = reference.dense_attention(*heads, one_step.HEAD_SIZE**-0.5)
    expected = model.o_proj(attended.reshape(5, -1))
    torch.testing.assert_close(one_step.run_step(model)[1:], expected, rtol=0, atol=1e-5)


def test_without_slots_nothing_is_written_and_nothing_is_said(model: one_step.SmallAttention) -> None:
    one_step.run_step(model, with_slots=False)
    assert not model.attn.kv_cache.any()
    one_step.run_step(model)
    written = model.attn.kv_cache.flatten(1, 2)[0].abs().sum(dim=(1, 2)).nonzero().flatten().tolist()
    assert written == sorted(one_step.common_metadata().slot_mapping.tolist())


def test_a_trace_of_it_fits_on_a_screen_or_two(model: one_step.SmallAttention) -> None:
    traced = trace(one_step.run_step, model, packages=("course.one_step", "kernels.backends"))
    assert len(traced.calls()) < 30
    assert traced.roots[0].name == "course.one_step:run_step"
