"""The states of the online softmax, block by block."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import course
from kernels import reference
from tests.kernels.batches import Spec, make_batch

BATCH = make_batch(
    Spec(((1, 9), (1, 4), (1, 0)), num_heads=6, num_kv_heads=2, head_size=8, block_size=4),
    torch.float32,
    torch.device("cpu"),
    seed=3,
    magnitude=3.0,
)


def attention_of_the_first(tokens: int, request: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and lse [num_heads] of a request when its sequence ends after `tokens` tokens."""
    seq_lens = BATCH.seq_lens.clone()
    seq_lens[request] = tokens
    arguments = (BATCH.query, BATCH.key_cache, BATCH.value_cache, BATCH.block_table, seq_lens, BATCH.scale)
    output, lse = reference.paged_decode(*arguments, return_lse=True)
    return output[request], lse[request]


@pytest.mark.parametrize("head", [0, 2, 3, 5])
@pytest.mark.parametrize("request_", [0, 1])
def test_each_state_answers_for_the_sequence_up_to_there(request_, head):
    steps = course.softmax_steps(*BATCH.decode_arguments, request=request_, head=head)
    assert steps.kv_head == head // 3
    assert [(step.first, step.end) for step in steps] == [[(0, 4), (4, 8), (8, 9)], [(0, 4)]][request_]
    assert [step.physical for step in steps] == BATCH.block_table[request_, : len(steps)].tolist()
    scores = torch.cat([step.scores for step in steps])
    for step in steps:
        output, lse = attention_of_the_first(step.end, request_)
        torch.testing.assert_close(step.output, output[head])
        torch.testing.assert_close(torch.tensor(step.l).log() + step.m, lse[head])
        assert step.m == scores[: step.end].max()
    assert steps[0].factor == 0
    for before, step in pairwise(steps):
        torch.testing.assert_close(torch.tensor(step.factor), torch.tensor(before.m - step.m).exp())


def test_a_request_without_tokens_has_no_steps():
    steps = course.softmax_steps(*BATCH.decode_arguments, request=2)
    assert list(steps) == []
    assert repr(steps).startswith("Request 2, head 0 (kv head 0): 0 tokens in 0 blocks")


def test_text_html_and_picture_show_the_numbers():
    steps = course.softmax_steps(*BATCH.decode_arguments, request=0, head=4)
    text, page = repr(steps), steps._repr_html_()
    assert text.splitlines()[0] == "Request 0, head 4 (kv head 1): 9 tokens in 3 blocks"
    assert len(text.splitlines()) == 2 + 3
    for step in steps:
        for shown in (f"{step.m:.3f}", f"{step.l:.4f}", f"{step.first} to {step.end - 1}"):
            assert shown in text
            assert shown in page
    assert (
        f"m {steps[1].m:g}, l {steps[1].l:.4g}, acc {float(steps[1].acc[2]):.4g}" in steps.picture(2).alt_text
    )


def test_the_learners_own_update_is_shown():
    def forgets_to_rescale(state, scores, values):
        m, l, acc = state  # noqa: E741
        m_new = torch.maximum(m, scores.max())
        weights = torch.exp(scores - m_new)
        return m_new, l + weights.sum(), acc + weights @ values

    # A head whose maximum grows after the first block.
    head = next(
        head for head in range(6) if course.softmax_steps(*BATCH.decode_arguments, head=head)[1].factor < 0.9
    )
    right = course.softmax_steps(*BATCH.decode_arguments, head=head)
    wrong = course.softmax_steps(*BATCH.decode_arguments, head=head, update=forgets_to_rescale)
    assert [step.m for step in wrong] == [step.m for step in right]
    assert wrong[0].l == right[0].l
    assert wrong[1].l > right[1].l
    with pytest.raises(
        ValueError, match="^update: expected it to return .m .., l .., acc .8.. as tensors, got NoneType"
    ):
        course.softmax_steps(*BATCH.decode_arguments, update=lambda *_: None)
    with pytest.raises(ValueError, match="^update: .* got shapes"):
        course.softmax_steps(
            *BATCH.decode_arguments, update=lambda state, scores, values: (scores, *state[1:])
        )


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="^request: expected 0 to 2, got 3"):
        course.softmax_steps(*BATCH.decode_arguments, request=3)
    with pytest.raises(ValueError, match="^head: expected 0 to 5, got -1"):
        course.softmax_steps(*BATCH.decode_arguments, head=-1)
    with pytest.raises(ValueError, match="^seq_lens: "):
        course.softmax_steps(*BATCH.decode_arguments[:4], BATCH.seq_lens[:1], BATCH.scale)
