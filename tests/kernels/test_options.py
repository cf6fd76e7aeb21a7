"""The options of scores as one thing: the keywords that it stands for, and what a kernel is given for them."""

import dataclasses
import inspect
import math

import pytest
import torch

import kernels
from kernels.contract import check_paged
from kernels.options import PLAIN, ScoreOptions, split_scale
from tests.kernels.batches import Spec, make_batch


def test_fields_are_paged_attentions_keywords():
    """Public functions fill it by position."""
    keywords = inspect.signature(kernels.paged_attention).parameters.values()
    keywords = [p for p in keywords if p.kind == p.KEYWORD_ONLY and p.name not in ("out", "return_lse")]
    fields = [(field.name, field.default) for field in dataclasses.fields(ScoreOptions)]
    assert fields == [(p.name, p.default) for p in keywords]


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (None, (None, 1.0, 0)),
        (3, (None, 3.0, 0)),
        (torch.tensor(2.0), ([2.0], 1.0, 0)),
        (torch.tensor([2.0]), ([2.0], 1.0, 0)),
        (torch.tensor([2.0, 5.0]), ([2.0, 5.0], 1.0, 1)),
    ],
    ids=str,
)
def test_a_scale_is_a_number_or_lies_on_the_device(scale, expected):
    tensor, number, stride = split_scale(scale)
    assert (tensor if tensor is None else tensor.tolist(), number, stride) == expected


def test_numbers_of_plain_scores():
    from kernels.scores import score_numbers

    numbers = score_numbers(0.5, PLAIN)
    assert numbers.factor == pytest.approx(0.5 / math.log(2))
    assert numbers[1:] == (0.0, 1.0, None, None, 0, 0, False)


def test_numbers_of_every_option():
    """A score s becomes cap * tanh(scale * k_scale * s / cap): the kernel's softcap takes twice that argument."""
    from kernels.scores import score_numbers

    scales = torch.tensor([1.0, 2.0])
    numbers = score_numbers(0.5, ScoreOptions(softcap=30.0, k_scale=3.0, v_scale=scales))
    assert numbers.factor == pytest.approx(2 * 0.5 * 3.0 / 30.0 / math.log(2))
    assert numbers.cap_log2 == pytest.approx(30.0 / math.log(2))
    assert (numbers.value_factor, numbers.k_scale, numbers.stride_k_scale_head) == (1.0, None, 0)
    assert (numbers.v_scale.tolist(), numbers.stride_v_scale_head) == ([1.0, 2.0], 1)
    numbers = score_numbers(0.5, ScoreOptions(k_scale=scales, v_scale=3.0))
    assert (numbers.value_factor, numbers.v_scale, numbers.stride_v_scale_head) == (3.0, None, 0)
    assert (numbers.k_scale.tolist(), numbers.stride_k_scale_head) == ([1.0, 2.0], 1)


@pytest.mark.parametrize(
    ("scale", "options", "first"),
    [
        (0.5, PLAIN, False),
        (0.5, ScoreOptions(causal=False, sliding_window=3, k_scale=2.0), False),
        (0.0, PLAIN, True),
        (-0.5, PLAIN, True),
        (0.5, ScoreOptions(softcap=1.0), True),
        (0.5, ScoreOptions(alibi_slopes=torch.ones(1)), True),
    ],
)
def test_when_scores_are_multiplied_before_the_softmax(scale, options, first):
    from kernels.scores import score_numbers

    assert score_numbers(scale, options).scale_first is first


def test_the_contract_checks_them_all():
    batch = make_batch(Spec(((3, 20),)), torch.float32, torch.device("cpu"))
    check_paged(*batch.arguments, None)
    for name, wrong in {
        "sliding_window": 0,
        "softcap": 0.0,
        "alibi_slopes": torch.ones(3),
        "sinks": torch.ones(3),
        "k_scale": 0.0,
        "v_scale": 0.0,
    }.items():
        with pytest.raises(ValueError, match=f"^{name}: "):
            check_paged(*batch.arguments, None, ScoreOptions(**{name: wrong}))
