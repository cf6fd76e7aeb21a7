"""What keyword arguments do to `paged_attention` and `paged_prefill`, against the float64 reference."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import kernels
from kernels import contract, prefill, reference
from tests.kernels.batches import DTYPES, Spec, assert_attention_right, make_batch

REQUESTS = ((1, 40), (5, 5), (9, 30), (0, 7), (17, 37), (2, 0))
SPEC = Spec(REQUESTS, num_heads=6, num_kv_heads=2)


def per_head(count, device, low=0.5, high=2.0):
    return torch.linspace(low, high, count, device=device)


def options_for(name, device, num_heads=6, num_kv_heads=2):
    """Keyword arguments by name, so that a test's id says what is on."""
    return {
        "not causal": {"causal": False},
        "window of 1": {"sliding_window": 1},
        "window of 7": {"sliding_window": 7},
        "window of 16": {"sliding_window": 16},
        "window past the start": {"sliding_window": 1000},
        "window, not causal": {"sliding_window": 9, "causal": False},
        "softcap of 50": {"softcap": 50.0},
        "softcap of 0.5": {"softcap": 0.5},
        "softcap, an int": {"softcap": 3},
        "alibi": {"alibi_slopes": per_head(num_heads, device, 0.05, 0.4)},
        "alibi, not causal": {"alibi_slopes": per_head(num_heads, device, 0.05, 0.4), "causal": False},
        "sinks": {"sinks": per_head(num_heads, device, -3.0, 6.0)},
        "sinks of minus infinity": {
            "sinks": per_head(num_heads, device, -math.inf, -math.inf).fill_(-math.inf)
        },
        "scales, numbers": {"k_scale": 0.5, "v_scale": 3.0},
        "scales, one tensor": {
            "k_scale": torch.tensor(0.5, device=device),
            "v_scale": torch.tensor([3.0], device=device),
        },
        "scales, per head": {
            "k_scale": per_head(num_kv_heads, device),
            "v_scale": per_head(num_kv_heads, device, 3.0, 0.1),
        },
        "everything": {
            "sliding_window": 11,
            "softcap": 20.0,
            "alibi_slopes": per_head(num_heads, device, 0.05, 0.4),
            "sinks": per_head(num_heads, device, -3.0, 6.0),
            "k_scale": per_head(num_kv_heads, device),
            "v_scale": 0.7,
        },
    }[name]


NAMES = [
    "not causal",
    "window of 1",
    "window of 7",
    "window of 16",
    "window past the start",
    "window, not causal",
    "softcap of 50",
    "softcap of 0.5",
    "softcap, an int",
    "alibi",
    "alibi, not causal",
    "sinks",
    "sinks of minus infinity",
    "scales, numbers",
    "scales, one tensor",
    "scales, per head",
    "everything",
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_each_feature_is_right(name, dtype, device):
    batch = make_batch(SPEC, dtype, device)
    options = options_for(name, device)
    output, lse = kernels.paged_attention(*batch.arguments, return_lse=True, **options)
    assert_attention_right(batch, output, lse, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cache_dtype", contract.FP8_DTYPES, ids=str)
@pytest.mark.parametrize("name", [None, "scales, numbers", "scales, per head", "everything"])
def test_fp8_caches(name, cache_dtype, dtype, device):
    batch = make_batch(SPEC, dtype, device).with_fp8_cache(cache_dtype)
    options = {} if name is None else options_for(name, device)
    output, lse = kernels.paged_attention(*batch.arguments, return_lse=True, **options)
    assert_attention_right(batch, output, lse, **options)


@st.composite
def drawn(draw):
    """(spec, options) with any features at once. Small: the interpreter has to run them."""
    num_kv_heads, group = draw(st.sampled_from([(1, 1), (2, 1), (1, 4), (2, 7), (3, 3), (1, 8)]))
    num_heads = num_kv_heads * group
    lengths = st.tuples(st.integers(0, 12), st.integers(0, 40)).map(
        lambda pair: (pair[0], 0 if pair[1] == 0 else sum(pair))
    )
    spec = Spec(
        tuple(draw(st.lists(lengths, min_size=1, max_size=4))),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_size=draw(st.sampled_from([64, 80, 96, 112, 128, 192, 256])),
        block_size=draw(st.sampled_from([8, 16, 24, 32, 256])),
    )
    slopes = st.lists(st.floats(0.0, 1.0, width=32), min_size=num_heads, max_size=num_heads)
    sinks = st.lists(st.floats(-10.0, 10.0, width=32), min_size=num_heads, max_size=num_heads)
    scales = st.one_of(
        st.none(),
        st.sampled_from([0.5, 1.0, 2.5]),
        st.lists(st.floats(0.25, 4.0, width=32), min_size=num_kv_heads, max_size=num_kv_heads),
    )
    options = {
        "causal": draw(st.booleans()),
        "sliding_window": draw(st.none() | st.integers(1, 60)),
        "softcap": draw(st.none() | st.sampled_from([0.7, 15.0, 50.0])),
        "alibi_slopes": draw(st.none() | slopes),
        "sinks": draw(st.none() | sinks),
        "k_scale": draw(scales),
        "v_scale": draw(scales),
        "batch_invariant": draw(st.booleans()),
    }
    cache_dtype = draw(st.sampled_from([None, *contract.FP8_DTYPES]))
    return spec, options, cache_dtype, draw(st.sampled_from([torch.float16, torch.float32]))


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(case=drawn())
@example(case=(Spec(((3, 0), (2, 2))), {"causal": False, "sinks": [1.0] * 4}, None, torch.float32))
@example(case=(Spec(((10, 0),)), {"sliding_window": 1}, None, torch.float32))
def test_features_together(case, device):
    spec, options, cache_dtype, dtype = case
    options = {
        name: torch.tensor(value, device=device) if isinstance(value, list) else value
        for name, value in options.items()
    }
    batch = make_batch(spec, dtype, device)
    if cache_dtype is not None:
        batch = batch.with_fp8_cache(cache_dtype)
    output, lse = kernels.paged_prefill(*batch.arguments, return_lse=True, **options)
    assert_attention_right(batch, output, lse, **options)


@pytest.mark.parametrize("num_splits", [2, 5])
@pytest.mark.parametrize("name", [None, "not causal", "window of 7", "everything"])
def test_any_number_of_splits(name, num_splits, device, monkeypatch):
    monkeypatch.setattr(prefill, "choose_key_splits", lambda *shapes: num_splits)
    monkeypatch.setattr(prefill.runtime, "interpreter_tile", lambda *sizes: 16)
    batch = make_batch(SPEC, torch.float16, device)
    options = {} if name is None else options_for(name, device)
    output, lse = kernels.paged_prefill(*batch.arguments, return_lse=True, **options)
    assert_attention_right(batch, output, lse, **options)


@pytest.mark.parametrize("name", [None, "not causal", "window of 7", "window of 16", "everything"])
def test_several_tiles(name, device, monkeypatch):
    """Tiles of 16 keys: masked ones at both ends of the loop, unmasked ones between, invisible ones skipped."""
    monkeypatch.setattr(prefill.runtime, "interpreter_tile", lambda *sizes: 16)
    batch = make_batch(Spec(((3, 70), (40, 90), (1, 33))), torch.float32, device)
    options = {} if name is None else options_for(name, device, num_heads=4)
    output, lse = kernels.paged_prefill(*batch.arguments, return_lse=True, **options)
    assert_attention_right(batch, output, lse, **options)


def test_a_window_reads_nothing_before_it(device):
    """An engine gives blocks that a window has passed to others: what they hold, NaN say, is not looked at."""
    batch = make_batch(Spec(((4, 80),), block_size=16), torch.float32, device)
    before = reference.paged_attention(*batch.arguments, sliding_window=8)
    batch.key_cache[batch.block_table[0, :4]] = math.nan
    batch.value_cache[batch.block_table[0, :4]] = math.nan
    for module in (kernels, reference):
        output = module.paged_attention(*batch.arguments, sliding_window=8)
        torch.testing.assert_close(output, before, rtol=1e-5, atol=1e-5)


def test_a_window_as_long_as_the_sequence_changes_nothing(device):
    batch = make_batch(SPEC, torch.float32, device)
    plain = kernels.paged_attention(*batch.arguments)
    assert torch.equal(plain, kernels.paged_attention(*batch.arguments, sliding_window=40))


def test_softcap_of_huge_scores_is_finite(device):
    """exp(2x) overflows from x = 44 on; infinity by infinity would be NaN."""
    batch = make_batch(SPEC, torch.float32, device, magnitude=1e6)
    output, lse = kernels.paged_attention(*batch.arguments, softcap=2.0, return_lse=True)
    assert output.isfinite().all()
    assert_attention_right(batch, output, lse, softcap=2.0)


def test_a_sink_takes_weight_and_adds_nothing(device):
    """With all scores equal to its own, a sink is one more key of zeros."""
    batch = make_batch(Spec(((1, 3),)), torch.float32, device)
    batch = replace(batch, query=torch.zeros_like(batch.query))
    sinks = torch.zeros(4, device=device)
    plain = kernels.paged_attention(*batch.arguments)
    output, lse = kernels.paged_attention(*batch.arguments, sinks=sinks, return_lse=True)
    torch.testing.assert_close(output, plain * 3 / 4)
    torch.testing.assert_close(lse, torch.full_like(lse, math.log(4.0)))


def test_huge_sinks_leave_zeros(device):
    batch = make_batch(SPEC, torch.float32, device)
    output, lse = kernels.paged_attention(
        *batch.arguments, sinks=torch.full((6,), 3e4, device=device), return_lse=True
    )
    assert output.eq(0).all()
    torch.testing.assert_close(lse, torch.full_like(lse, 3e4))


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_invariant_gives_the_same_bits(dtype, device):
    """Each request alone, and in batches of other shapes, longer tables and other neighbours."""
    batch = make_batch(Spec(((1, 40), (9, 30), (70, 150), (3, 20))), dtype, device)
    together = kernels.paged_attention(*batch.arguments, batch_invariant=True)
    starts = batch.query_start_loc.tolist()
    for request in range(4):
        tokens = slice(starts[request], starts[request + 1])
        length = starts[request + 1] - starts[request]
        alone = replace(
            batch,
            query=batch.query[tokens],
            block_table=batch.block_table[request : request + 1],
            seq_lens=batch.seq_lens[request : request + 1],
            query_start_loc=torch.tensor([0, length], dtype=torch.int32, device=device),
        )
        output = kernels.paged_attention(*alone.arguments, batch_invariant=True)
        assert torch.equal(output, together[tokens])


def test_explain_says_what_runs(device):
    batch = make_batch(SPEC, torch.float32, device)
    choice = kernels.explain(*batch.arguments)
    if kernels.INTERPRET:
        assert choice.tier == "interpreter"
        assert str(choice) == "interpreter: kernels run on: CPU (Triton interpreter)"
    else:
        assert str(choice).startswith("triton: of the Hopper kernel: it ")
    assert kernels.explain(*batch.arguments, batch_invariant=True).tier in ("triton", "interpreter")
    with pytest.raises(ValueError, match="scale: expected a finite number"):
        kernels.explain(*batch.arguments[:-1], math.inf)


def test_explain_decode_says_what_runs(device):
    batch = make_batch(replace(SPEC, requests=((1, 9), (1, 40))), torch.float32, device)
    choice = kernels.explain_decode(*batch.decode_arguments)
    if kernels.INTERPRET:
        assert str(choice) == "interpreter: kernels run on: CPU (Triton interpreter)"
    else:
        assert str(choice).startswith("triton: of the Hopper kernel: it ")
    with pytest.raises(ValueError, match="scale: expected a finite number"):
        kernels.explain_decode(*batch.decode_arguments[:-1], math.inf)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("head_size", "length", "window", "tier"),
    [
        (128, 241, None, "hopper"),  # the table has a block more, which nobody owns
        (64, 241, None, "hopper"),
        (256, 241, None, "hopper"),
        (80, 241, None, "triton"),
        (128, 240, None, "triton"),
        (128, 9000, 256, "triton"),
        (128, 9000, 257, "hopper"),
    ],
)
def test_decode_takes_the_tier_that_was_measured_to_be_faster(head_size, length, window, tier, device):
    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("needs a Hopper GPU")
    spec = Spec(((1, length), (1, 3)), num_heads=8, num_kv_heads=2, head_size=head_size)
    arguments = make_batch(spec, torch.bfloat16, device).decode_arguments
    assert kernels.explain_decode(*arguments, sliding_window=window).tier == tier
