"""Bad input: every wrong argument gives a ValueError that names it, says what was expected and what came."""

import math
import re

import pytest
import torch

import kernels
from kernels import reference
from tests.kernels.batches import Spec, make_batch

MODULES = pytest.mark.parametrize("module", [kernels, reference], ids=["triton", "reference"])
PAGED = ("query", "key_cache", "value_cache", "block_table", "seq_lens", "query_start_loc", "scale")
needs_cpu = pytest.mark.skipif(not kernels.INTERPRET, reason="values are checked on the CPU only")


def paged(device, **changes):
    """Two requests of 3 and 1 query tokens, 20 and 5 in the cache, blocks of 8; some arguments replaced."""
    batch = make_batch(Spec(((3, 20), (1, 5)), block_size=8), torch.float32, device)
    arguments = dict(zip(PAGED, batch.arguments, strict=True))
    for name, change in changes.items():
        arguments[name] = change(arguments.get(name)) if callable(change) else change
    return arguments


def set_to(index, value):
    def change(tensor):
        tensor = tensor.clone()
        tensor[index] = value
        return tensor

    return change


WRONG = {
    "query as a list": ({"query": [1.0]}, "query: expected a torch tensor, got list"),
    "query of 2 dims": (
        {"query": lambda t: t[0]},
        "query: expected shape [num_tokens, num_heads, head_size], got [4, 64]",
    ),
    "query of integers": ({"query": lambda t: t.int()}, "query: expected float16 or bfloat16 or float32"),
    "query with strides": (
        {"query": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2)},
        "query: expected the last dimension to be contiguous (stride 1), got stride 4",
    ),
    "another head size": ({"query": lambda t: t[..., :32]}, "key_cache: expected shape"),
    "heads that do not divide": (
        {"query": lambda t: t[:, :3]},
        "num_heads: expected a multiple of num_kv_heads=2, got 3",
    ),
    "no heads": (
        {"query": lambda t: t[:, :0]},
        "num_heads, num_kv_heads and head_size: expected at least 1 each",
    ),
    "cache in another dtype": ({"key_cache": lambda t: t.half()}, "key_cache: expected float32, got float16"),
    "cache without blocks' size": (
        {"key_cache": lambda t: t.flatten(0, 1)},
        "key_cache: expected shape [num_blocks, block_size,",
    ),
    "blocks of no tokens": (
        {"key_cache": lambda t: t[:, :0]},
        "key_cache: expected block_size of at least 1",
    ),
    "value cache of another size": (
        {"value_cache": lambda t: t[:-1]},
        "value_cache: expected shape [num_blocks=",
    ),
    "value cache in another dtype": (
        {"value_cache": lambda t: t.half()},
        "value_cache: expected float32, got float16",
    ),
    "table of int64": ({"block_table": lambda t: t.long()}, "block_table: expected int32, got int64"),
    "table of 1 dim": (
        {"block_table": lambda t: t[0]},
        "block_table: expected shape [num_reqs, max_num_blocks], got [4]",
    ),
    "table with strides": (
        {"block_table": lambda t: t.repeat(1, 2)[:, ::2]},
        "block_table: expected the last dimension",
    ),
    "too few lengths": ({"seq_lens": lambda t: t[:1]}, "seq_lens: expected shape [num_reqs=2], got [1]"),
    "lengths of int64": ({"seq_lens": lambda t: t.long()}, "seq_lens: expected int32, got int64"),
    "starts without the end": (
        {"query_start_loc": lambda t: t[:-1]},
        "query_start_loc: expected shape [num_reqs + 1=3], got [2]",
    ),
    "starts of int64": (
        {"query_start_loc": lambda t: t.long()},
        "query_start_loc: expected int32, got int64",
    ),
    "tokens without requests": (
        {
            "block_table": lambda t: t[:0],
            "seq_lens": lambda t: t[:0],
            "query_start_loc": lambda t: t[:1],
        },
        "query: expected no tokens, because block_table has no requests, got 4",
    ),
    "scale as a tensor": ({"scale": torch.tensor(1.0)}, "scale: expected a float, got Tensor"),
    "scale missing": ({"scale": None}, "scale: expected a float, got NoneType"),
    "scale infinite": ({"scale": math.inf}, "scale: expected a finite number, got inf"),
    "scale not a number": ({"scale": math.nan}, "scale: expected a finite number, got nan"),
    "out of another shape": (
        {"out": lambda _: torch.zeros(4, 4, 32)},
        "out: expected shape [num_tokens=4, num_heads=4, head_size=64]",
    ),
    "out of another dtype": (
        {"out": lambda _: torch.zeros(4, 4, 64).half()},
        "out: expected float32, got float16",
    ),
    "out expanded": (
        {"out": lambda _: torch.zeros(1, 4, 64).expand(4, 4, 64)},
        "out: expected every element to have its own place",
    ),
}

# What keyword arguments add.
WRONG |= {
    "window of nothing": ({"sliding_window": 0}, "sliding_window: expected None or the number of keys"),
    "window not whole": ({"sliding_window": 2.5}, "sliding_window: expected None or the number of keys"),
    "window as a bool": ({"sliding_window": True}, "sliding_window: expected None or the number of keys"),
    "softcap of zero": ({"softcap": 0.0}, "softcap: expected None or a positive number, got 0.0"),
    "softcap infinite": ({"softcap": math.inf}, "softcap: expected None or a positive number, got inf"),
    "softcap as a tensor": ({"softcap": torch.tensor(1.0)}, "softcap: expected None or a positive number"),
    "slopes as a list": ({"alibi_slopes": [0.5] * 4}, "alibi_slopes: expected a torch tensor, got list"),
    "too few slopes": (
        {"alibi_slopes": lambda _: torch.ones(2)},
        "alibi_slopes: expected shape [num_heads=4], got [2]",
    ),
    "slopes in another dtype": (
        {"alibi_slopes": lambda _: torch.ones(4).half()},
        "alibi_slopes: expected float32, got float16",
    ),
    "slopes with strides": (
        {"alibi_slopes": lambda _: torch.ones(8)[::2]},
        "alibi_slopes: expected the last dimension to be contiguous",
    ),
    "too many sinks": ({"sinks": lambda _: torch.ones(5)}, "sinks: expected shape [num_heads=4], got [5]"),
    "k_scale of zero": ({"k_scale": 0.0}, "k_scale: expected a positive finite number, got 0.0"),
    "v_scale below zero": ({"v_scale": -1.0}, "v_scale: expected a positive finite number, got -1.0"),
    "k_scale as a list": ({"k_scale": [1.0, 1.0]}, "k_scale: expected a float or a tensor, got list"),
    "k_scale for each query head": (
        {"k_scale": lambda _: torch.ones(4)},
        "k_scale: expected shape [], [1] or [num_kv_heads=2], got [4]",
    ),
    "v_scale in another dtype": (
        {"v_scale": lambda _: torch.ones(2).half()},
        "v_scale: expected float32, got float16",
    ),
    "one cache in fp8": (
        {"key_cache": lambda t: t.to(torch.float8_e4m3fn)},
        "value_cache: expected float8_e4m3fn, got float32",
    ),
    "caches in two fp8 formats": (
        {
            "key_cache": lambda t: t.to(torch.float8_e4m3fn),
            "value_cache": lambda t: t.to(torch.float8_e5m2),
        },
        "value_cache: expected float8_e4m3fn, got float8_e5m2",
    ),
    "query in fp8": (
        {"query": lambda t: t.to(torch.float8_e4m3fn)},
        "query: expected float16 or bfloat16 or float32",
    ),
}


def on_device(arguments, device):
    """New tensors that a change made on the CPU, where the others are; strides stay."""
    for name, tensor in arguments.items():
        if isinstance(tensor, torch.Tensor) and tensor.device != device and name != "softcap":
            there = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
            arguments[name] = there if name == "out" else there.copy_(tensor)
    return arguments


@MODULES
@pytest.mark.parametrize("wrong", WRONG)
def test_paged_attention_refuses(wrong, module, device):
    changes, message = WRONG[wrong]
    arguments = on_device(paged(device, **changes), device)
    for function in (module.paged_attention, module.paged_prefill):
        with pytest.raises(ValueError, match=re.escape(message)):
            function(**arguments)


WRONG_VALUES = {
    "length past the table": (
        {"seq_lens": set_to(1, 33)},
        "seq_lens[1]: expected lengths from 0 to 32 (block_table has 4 entries a request, block_size is 8), got 33",
    ),
    "negative length": ({"seq_lens": set_to(0, -1)}, "seq_lens[0]: expected lengths from 0 to 32"),
    "block that does not exist": (
        {"block_table": set_to((0, 2), 1000)},
        "block_table[0, 2]: expected block ids from 0 to 6",
    ),
    "padding among owned blocks": (
        {"block_table": set_to((1, 0), -1)},
        "block_table[1, 0]: expected block ids from 0 to 6",
    ),
    "starts not at zero": (
        {"query_start_loc": set_to(0, 1)},
        "query_start_loc: expected to start at 0 and to end at num_tokens=4, got [1, 3, 4]",
    ),
    "ends too early": (
        {"query_start_loc": set_to(2, 3)},
        "query_start_loc: expected to start at 0 and to end at num_tokens=4, got [0, 3, 3]",
    ),
    "starts that fall": (
        {"query_start_loc": set_to(1, 5)},
        "query_start_loc: expected values that never fall, got [0, 5, 4]",
    ),
    "more queries than tokens": (
        {"seq_lens": set_to(0, 2)},
        "seq_lens[0]: expected at least 3, the number of query tokens of request 0",
    ),
}


@needs_cpu
@MODULES
@pytest.mark.parametrize("wrong", WRONG_VALUES)
def test_paged_attention_refuses_values_that_would_read_foreign_memory(wrong, module, device):
    changes, message = WRONG_VALUES[wrong]
    with pytest.raises(ValueError, match=re.escape(message)):
        module.paged_attention(**paged(device, **changes))


@MODULES
@pytest.mark.parametrize("wrong", WRONG_VALUES)
def test_debugging_checks_values_everywhere(wrong, module, device, monkeypatch):
    """KERNELS_DEBUG=1: on a GPU too, where the check waits for it."""
    monkeypatch.setenv("KERNELS_DEBUG", "1")
    changes, message = WRONG_VALUES[wrong]
    with pytest.raises(ValueError, match=re.escape(message)):
        module.paged_attention(**paged(device, **changes))


@needs_cpu
@MODULES
@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_scales_on_the_device_are_positive(scale, module, device):
    scales = torch.tensor([1.0, scale], device=device)
    with pytest.raises(ValueError, match=re.escape("v_scale[1]: expected positive finite numbers")):
        module.paged_attention(**paged(device), v_scale=scales)
    with pytest.raises(ValueError, match=re.escape("k_scale[1]: expected positive finite numbers")):
        module.reshape_and_cache(**cache_write(device), k_scale=scales)


@MODULES
def test_paged_decode_refuses(module, device):
    arguments = paged(device)
    del arguments["query_start_loc"]
    with pytest.raises(
        ValueError, match=re.escape("block_table: expected shape [num_reqs=4, max_num_blocks]")
    ):
        module.paged_decode(**arguments)
    arguments["query"] = arguments["query"][:2]
    with pytest.raises(ValueError, match=re.escape("seq_lens: expected shape [num_reqs=2], got [1]")):
        module.paged_decode(**{**arguments, "seq_lens": arguments["seq_lens"][:1]})
    with pytest.raises(ValueError, match=re.escape("out: expected shape [num_tokens=2")):
        module.paged_decode(**arguments, out=torch.zeros(4, 4, 64, device=device))


def cache_write(device):
    return {
        "key": torch.zeros(4, 2, 16, device=device),
        "value": torch.zeros(4, 2, 16, device=device),
        "key_cache": torch.zeros(3, 8, 2, 16, device=device),
        "value_cache": torch.zeros(3, 8, 2, 16, device=device),
        "slot_mapping": torch.arange(4, device=device),
    }


WRONG_WRITES = {
    "key of 2 dims": (
        "key",
        lambda t: t.flatten(1),
        "key: expected shape [num_tokens, num_kv_heads, head_size], got [4, 32]",
    ),
    "key without heads": (
        "key",
        lambda t: t[:, :0],
        "value: expected shape [num_tokens=4, num_kv_heads=0, head_size=16]",
    ),
    "fewer values": (
        "value",
        lambda t: t[:3],
        "value: expected shape [num_tokens=4, num_kv_heads=2, head_size=16], got [3, 2, 16]",
    ),
    "value in another dtype": ("value", lambda t: t.half(), "value: expected float32, got float16"),
    "cache of other heads": (
        "key_cache",
        lambda t: t[:, :, :1],
        "key_cache: expected shape [num_blocks, block_size, num_kv_heads=2, head_size=16]",
    ),
    "cache in another dtype": (
        "value_cache",
        lambda t: t.half(),
        "value_cache: expected float32, got float16",
    ),
    "cache expanded": (
        "value_cache",
        lambda t: t[:1].expand(3, 8, 2, 16),
        "value_cache: expected every element to have its own place",
    ),
    "slots of int32": ("slot_mapping", lambda t: t.int(), "slot_mapping: expected int64, got int32"),
    "too few slots": (
        "slot_mapping",
        lambda t: t[:2],
        "slot_mapping: expected shape [num_tokens=4], got [2]",
    ),
}


@MODULES
@pytest.mark.parametrize("wrong", WRONG_WRITES)
def test_reshape_and_cache_refuses(wrong, module, device):
    name, change, message = WRONG_WRITES[wrong]
    arguments = cache_write(device)
    arguments[name] = change(arguments[name])
    with pytest.raises(ValueError, match=re.escape(message)):
        module.reshape_and_cache(**arguments)


@needs_cpu
@MODULES
@pytest.mark.parametrize("slot", [24, -2, 2**40])
def test_reshape_and_cache_refuses_slots_outside_the_cache(slot, module, device):
    arguments = cache_write(device)
    arguments["slot_mapping"][2] = slot
    message = f"slot_mapping[2]: expected slots from 0 to 23 (num_blocks * block_size = 24), or -1 for a token that is not written, got {slot}"
    with pytest.raises(ValueError, match=re.escape(message)):
        module.reshape_and_cache(**arguments)
    assert arguments["key_cache"].eq(0).all()


@MODULES
def test_reshape_and_cache_refuses_scales(module, device):
    for options, message in [
        ({"k_scale": 0.0}, "k_scale: expected a positive finite number, got 0.0"),
        ({"v_scale": True}, "v_scale: expected a float or a tensor, got bool"),
        (
            {"v_scale": torch.ones(3, device=device)},
            "v_scale: expected shape [], [1] or [num_kv_heads=2], got [3]",
        ),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            module.reshape_and_cache(**cache_write(device), **options)


LATENT = ("query", "latent_cache", "block_table", "seq_lens", "scale")
WRONG_LATENTS = {
    "query of 2 dims": ({"query": lambda t: t[0]}, "query: expected shape [num_reqs, num_heads, head_size]"),
    "cache with heads": (
        {"latent_cache": lambda t: t[:, :, None]},
        "latent_cache: expected shape [num_blocks, block_size, head_size=64], got [7, 8, 1, 64]",
    ),
    "cache of another size": (
        {"latent_cache": lambda t: t[..., :32]},
        "latent_cache: expected shape [num_blocks, block_size, head_size=64], got [7, 8, 32]",
    ),
    "cache in another dtype": (
        {"latent_cache": lambda t: t.half()},
        "latent_cache: expected float32, got float16",
    ),
    "blocks of no tokens": (
        {"latent_cache": lambda t: t[:, :0]},
        "latent_cache: expected block_size of at least 1",
    ),
    "no rank": ({"kv_lora_rank": 0}, "kv_lora_rank: expected a number from 1 to head_size=64, got 0"),
    "a rank beyond the row": (
        {"kv_lora_rank": 65},
        "kv_lora_rank: expected a number from 1 to head_size=64, got 65",
    ),
    "rank as a float": (
        {"kv_lora_rank": 32.0},
        "kv_lora_rank: expected a number from 1 to head_size=64, got 32.0",
    ),
    "too few lengths": ({"seq_lens": lambda t: t[:1]}, "seq_lens: expected shape [num_reqs=2], got [1]"),
    "too few rows": ({"block_table": lambda t: t[:1]}, "block_table: expected shape [num_reqs=2"),
    "scale missing": ({"scale": None}, "scale: expected a float, got NoneType"),
    "kv_scale of zero": ({"kv_scale": 0.0}, "kv_scale: expected a positive finite number, got 0.0"),
    "kv_scale for each head": (
        {"kv_scale": lambda _: torch.ones(2)},
        "kv_scale: expected shape [], [1] or [num_kv_heads=1], got [2]",
    ),
    "out of another shape": (
        {"out": lambda _: torch.zeros(2, 4, 64)},
        "out: expected shape [num_reqs=2, num_heads=4, kv_lora_rank=48], got [2, 4, 64]",
    ),
}


@MODULES
@pytest.mark.parametrize("wrong", WRONG_LATENTS)
def test_latent_decode_refuses(wrong, module, device):
    changes, message = WRONG_LATENTS[wrong]
    batch = make_batch(Spec(((1, 20), (1, 5)), num_kv_heads=1, block_size=8), torch.float32, device)
    values = (batch.query, batch.key_cache[:, :, 0], batch.block_table, batch.seq_lens, batch.scale)
    arguments = dict(zip(LATENT, values, strict=True)) | {"kv_lora_rank": 48}
    for name, change in changes.items():
        arguments[name] = change(arguments.get(name)) if callable(change) else change
    with pytest.raises(ValueError, match=re.escape(message)):
        module.latent_decode(**on_device(arguments, device))


@MODULES
@pytest.mark.parametrize("length", [-8, 4, 40, 8.0, None, True])
def test_cascade_refuses_prefixes(length, module, device):
    arguments = paged(device)
    out = torch.full_like(arguments["query"], math.nan)
    with pytest.raises(
        ValueError, match="common_prefix_len: expected a multiple of block_size=8 from 0 to 32, got"
    ):
        module.cascade_attention(**arguments, common_prefix_len=length, out=out)
    assert out.isnan().all()


@needs_cpu
@MODULES
def test_cascade_refuses_what_is_not_shared(module, device):
    others = paged(device, block_table=lambda t: t[0, [[0, 1, 2, 3], [1, 0, 2, 3]]], seq_lens=set_to(1, 12))
    with pytest.raises(ValueError, match=re.escape("block_table[1, 0]: expected the first 1 blocks of")):
        module.cascade_attention(**others, common_prefix_len=8)
    with pytest.raises(ValueError, match=re.escape("seq_lens[1]: expected at least common_prefix_len=8")):
        module.cascade_attention(
            **paged(device, block_table=lambda t: t[:1].expand(2, -1).contiguous(), seq_lens=set_to(1, 8)),
            common_prefix_len=8,
        )


@MODULES
def test_merge_refuses(module, device):
    outputs, lses = torch.zeros(3, 2, 4, 8, device=device), torch.zeros(3, 2, 4, device=device)
    for wrong, message in [
        (
            (outputs[0], lses),
            "outputs: expected shape [num_splits, num_tokens, num_heads, head_size], got [2, 4, 8]",
        ),
        (
            (outputs, lses[:2]),
            "lses: expected shape [num_splits=3, num_tokens=2, num_heads=4], got [2, 2, 4]",
        ),
        ((outputs, lses.half()), "lses: expected float32, got float16"),
        ((outputs[:0], lses[:0]), "outputs: expected at least one split, got none"),
        ((outputs.long(), lses), "outputs: expected float16 or bfloat16 or float32"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            module.merge_attn_states(*wrong)


def test_dense_attention_refuses():
    query, key = torch.zeros(3, 4, 8), torch.zeros(2, 2, 8)
    for wrong, message in [
        ((query, key, key, 1.0), "query: expected at most n_kv=2 queries, because they are the last tokens"),
        (
            (query, key, key[:1], 1.0),
            "value: expected shape [n_kv=2, num_kv_heads=2, head_size=8], got [1, 2, 8]",
        ),
        ((query[:, :3], key, key, 1.0), "num_heads: expected a multiple of num_kv_heads=2, got 3"),
        ((query, key.half(), key, 1.0), "key: expected float32, got float16"),
        ((query, key, key, True), "scale: expected a float, got bool"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            reference.dense_attention(*wrong)


def test_float64_is_for_references(device):
    arguments = {name: t.double() if name in PAGED[:3] else t for name, t in paged(device).items()}
    reference.paged_attention(**arguments)
    with pytest.raises(ValueError, match="query: expected float16 or bfloat16 or float32, got float64"):
        kernels.paged_attention(**arguments)


@needs_cpu
def test_bfloat16_in_the_interpreter_is_refused(device):
    arguments = {name: t.bfloat16() if name in PAGED[:3] else t for name, t in paged(device).items()}
    with pytest.raises(
        ValueError, match="query: expected float16 or float32, got bfloat16, which Triton's interpreter"
    ):
        kernels.paged_attention(**arguments)
    write = {n: t if n == "slot_mapping" else t.bfloat16() for n, t in cache_write(device).items()}
    with pytest.raises(ValueError, match="key: expected float16 or float32, got bfloat16"):
        kernels.reshape_and_cache(**write)
    with pytest.raises(ValueError, match="outputs: expected float16 or float32, got bfloat16"):
        kernels.merge_attn_states(torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16), torch.zeros(1, 1, 1))


@needs_cpu
@pytest.mark.parametrize("name", ["query", "key_cache", "block_table", "seq_lens"])
def test_a_tensor_elsewhere_is_refused(name, device):
    """The meta device stands for any other device."""
    message = "query" if name == "query" else name
    with pytest.raises(ValueError, match=f"(key_cache|{message}): expected a tensor on"):
        kernels.paged_attention(**paged(device, **{name: lambda tensor: tensor.to("meta")}))
