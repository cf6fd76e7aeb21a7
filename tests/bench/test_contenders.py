"""Everyone who is measured, run once on small cases: in the interpreter what runs there, on a GPU what is installed."""

import pytest
import torch

import kernels
from bench.all_contenders import CONTENDERS, choose_contenders
from bench.cases import CASES, Case
from bench.contender import Contender, Unsupported
from bench.inputs import Inputs, num_copies

SIZES = {"num_heads": 4, "num_kv_heads": 2, "head_size": 64}
CASES_HERE = [
    Case("decode", ((1, 40), (1, 40)), **SIZES),
    Case("ragged", ((1, 40), (1, 7)), **SIZES),
    Case("prefill", ((20, 20),), **SIZES),
    Case("chunk", ((9, 40),), **SIZES),
    Case("mixed", ((2, 3), (1, 4)), **SIZES),
    Case("decode, window", ((1, 40), (1, 40)), **SIZES, sliding_window=9),
    Case("decode, fp8", ((1, 40), (1, 40)), **SIZES, kv_dtype="float8_e4m3fn"),
    Case("latent", ((1, 40), (1, 7)), num_heads=16, num_kv_heads=1, head_size=96, latent_size=64),
]


def make_inputs(case: Case, seed: int = 0) -> Inputs:
    """On this machine's device, in the dtype that its kernels take."""
    return Inputs(case, seed, kernels.device().type, torch.float16 if kernels.INTERPRET else torch.bfloat16)


@pytest.mark.parametrize("case", CASES_HERE, ids=lambda case: case.name)
@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_a_contender_is_right_or_says_why_not(contender: Contender, case: Case):
    inputs = make_inputs(case)
    try:
        call = contender.prepare(inputs)
    except ImportError as missing:
        pytest.skip(str(missing))
    except Unsupported:
        return
    assert inputs.error(call()) <= contender.error_limit
    assert inputs.error(call()) <= contender.error_limit  # nothing is used up


def test_our_functions_do_every_kind_of_case():
    for case in CASES_HERE[:5]:
        names = []
        for contender in CONTENDERS:
            if contender.ours:
                try:
                    contender.prepare(make_inputs(case))
                    names.append(contender.name)
                except Unsupported:
                    pass
        assert "paged_attention" in names
        assert ("paged_decode" in names) == (case.kind == "decode")


def test_an_error_shows_and_nan_is_no_small_one():
    inputs = make_inputs(CASES_HERE[0])
    assert inputs.error(inputs.expected) == 0
    assert inputs.error(inputs.expected * 1.1) == pytest.approx(0.1, rel=0.01)
    wrong = inputs.expected.clone()
    wrong[0, 0, 0] = torch.nan
    assert not inputs.error(wrong) <= 1.0
    with pytest.raises(ValueError, match="output: expected shape"):
        inputs.error(wrong[:1])


@pytest.mark.parametrize("case", CASES_HERE[:6], ids=lambda case: case.name)
def test_the_truth_is_that_of_the_references(case):
    """bench/inputs.py works it out by itself; here the two are held against each other, without a window."""
    if case.sliding_window is not None:
        pytest.skip("held against the reference by the kernels' own tests")
    inputs = Inputs(case, 0, "cpu", torch.float32)
    expected = kernels.reference.paged_attention(
        inputs.query,
        inputs.key_cache,
        inputs.value_cache,
        inputs.block_table,
        inputs.seq_lens,
        inputs.query_start_loc,
        inputs.scale,
    )
    torch.testing.assert_close(inputs.expected, expected, rtol=1e-5, atol=1e-5)


def test_a_window_of_one_sees_itself():
    inputs = make_inputs(Case("w", ((3, 40),), **SIZES, sliding_window=1))
    _, value = inputs.gather(0)
    expected = value[-3:].float().repeat_interleave(2, dim=1)
    torch.testing.assert_close(inputs.expected, expected, rtol=1e-5, atol=1e-5)


def test_copies_differ_in_numbers_and_not_in_blocks():
    one, other = make_inputs(CASES_HERE[0], 0), make_inputs(CASES_HERE[0], 1)
    assert torch.equal(one.block_table, other.block_table)
    assert not torch.equal(one.key_cache, other.key_cache)


def test_copies_are_larger_than_the_cache():
    cache = 50 * 2**20
    for case in CASES:
        copies = num_copies(case, cache)
        assert copies >= 2
        assert copies * case.kv_bytes >= 4 * cache


def test_names_differ_and_are_chosen_by_a_part():
    names = [contender.name for contender in CONTENDERS]
    assert len(set(names)) == len(names)
    assert [one.name for one in choose_contenders(["xqa"])] == ["FlashInfer xqa"]
    assert choose_contenders([]) == list(CONTENDERS)
    with pytest.raises(ValueError, match="contenders: expected part of a contender's name"):
        choose_contenders(["nobody"])
