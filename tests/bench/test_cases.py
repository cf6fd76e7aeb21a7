"""What a case counts, and which cases are chosen."""

import pytest

from bench.cases import CASES, Case, choose_cases

SMALL = Case("small", ((2, 3), (1, 4)), num_heads=4, num_kv_heads=2, head_size=8)


def test_flops_count_the_pairs_that_are_seen():
    """Queries of the first request see 2 and 3 keys, that of the second 4: 9 pairs, 4 heads, 8 + 8 multiply-adds."""
    assert SMALL.flops == 9 * 4 * (8 + 8) * 2


def test_flops_of_a_whole_prefill_are_the_triangle():
    assert Case("p", ((100, 100),)).flops == 4 * 128 * 32 * (100 * 101 // 2)


def test_bytes_count_keys_and_values_once_and_queries_and_outputs():
    assert SMALL.kv_bytes == 2 * 7 * 2 * 8 * 2
    assert SMALL.bytes == SMALL.kv_bytes + 2 * 3 * 4 * 8 * 2


def test_an_fp8_cache_is_half_as_large():
    assert Case("f", ((1, 100),), kv_dtype="float8_e4m3fn").kv_bytes * 2 == Case("b", ((1, 100),)).kv_bytes


@pytest.mark.parametrize("window", [1, 3, 7, 8, 9, 20, 100])
@pytest.mark.parametrize("request_", [(1, 20), (8, 8), (5, 12), (20, 20)])
def test_a_window_is_counted_as_it_is_seen(request_, window):
    """Query by query, in Python."""
    n_q, seq_len = request_
    seen = [range(max(0, p + 1 - window), p + 1) for p in range(seq_len - n_q, seq_len)]
    case = Case("w", (request_,), num_heads=2, num_kv_heads=1, head_size=4, sliding_window=window)
    assert case.flops == sum(map(len, seen)) * 2 * 4 * 4
    assert case.kv_bytes == len(set().union(*seen)) * 2 * 4 * 2


def test_latent_attention_reads_one_cache_and_its_values_are_narrower():
    case = Case("l", ((1, 10),), num_heads=4, num_kv_heads=1, head_size=24, latent_size=16)
    assert case.kind == "latent"
    assert case.kv_bytes == 10 * 24 * 2
    assert case.bytes == case.kv_bytes + 2 * 4 * (24 + 16)
    assert case.flops == 2 * 4 * 10 * (24 + 16)


def test_case_names_differ_and_say_what_they_are():
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        assert all(0 < n_q <= seq_len for n_q, seq_len in case.requests)
        assert (case.kind == "decode") == case.name.startswith("decode")
        assert (case.kind == "latent") == ("latent" in case.name)
        assert (case.kind == "mixed") == (" + " in case.name)


def test_ragged_lengths_are_the_same_every_time():
    ragged = next(case for case in CASES if "ragged" in case.name)
    lengths = [length for _, length in ragged.requests]
    assert len(lengths) == 128
    assert min(lengths) >= 32
    assert max(lengths) > 4000
    assert lengths[:3] == [2862, 3309, 953]


def test_choose_cases():
    assert choose_cases([]) == list(CASES)
    assert {case.name for case in choose_cases(["ragged", "prefill 4"])} == {
        "decode 128 ragged",
        "prefill 4 x 4k",
    }
    with pytest.raises(ValueError, match=r"cases: expected part of a case's name .* got 'nothing'"):
        choose_cases(["nothing"])
