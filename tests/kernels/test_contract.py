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


@MODULES
@pytest.mark.parametrize("wrong", WRONG)
def test_paged_attention_refuses(wrong, module, device):
    changes, message = WRONG[wrong]
    arguments = paged(device, **changes)
    if "out" in arguments:
        out = arguments["out"]
        arguments["out"] = (
            out
            if out.device == device
            else torch.empty_strided(out.shape, out.stride(), dtype=out.dtype, device=device)
        )
    with pytest.raises(ValueError, match=re.escape(message)):
        module.paged_attention(**arguments)


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
