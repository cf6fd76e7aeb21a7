"""Checks of what a backend says about itself and of what its builder makes."""

from typing import Any

import torch

from kernels.backends.backend import (
    AttentionImpl,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
    MLAAttentionImpl,
)
from kernels.backends.conformance.setup import ConformanceError, Setup
from kernels.backends.conformance.trial import Trial
from kernels.backends.platforms import get_device_capability


def description(setup: Setup) -> None:
    """The backend names itself and its classes, accepts what it is tried with, and refuses what it is not."""
    backend = setup.backend
    name = backend.get_name()
    if not isinstance(name, str) or not name:
        raise ConformanceError(f"get_name: expected a name, got {name!r}")
    base = MLAAttentionImpl if backend.is_mla() else AttentionImpl
    for method, kind in (("get_impl_cls", base), ("get_builder_cls", AttentionMetadataBuilder)):
        got = getattr(backend, method)()
        if not (isinstance(got, type) and issubclass(got, kind)):
            raise ConformanceError(f"{method}: expected a subclass of {kind.__name__}, got {got!r}")

    question: dict[str, Any] = {
        "head_size": setup.head_size,
        "dtype": setup.dtype,
        "kv_cache_dtype": "auto",
        "block_size": setup.block_size,
        "use_mla": backend.is_mla(),
        "has_sink": False,
        "device_capability": get_device_capability(setup.device),
    }
    refusals = {
        "use_mla": (not backend.is_mla(), "a cache of the other kind"),
        "dtype": (torch.int8, "a model of int8 numbers"),
        "kv_cache_dtype": ("int3", "a cache of int3 numbers"),
    }
    reasons = backend.validate_configuration(**question)
    if reasons != []:
        raise ConformanceError(
            f"validate_configuration: expected [] for the setup on trial, which it accepted, got {reasons!r}"
        )
    for field, (value, what) in refusals.items():
        reasons = backend.validate_configuration(**(question | {field: value}))
        if not isinstance(reasons, list) or not reasons or not all(isinstance(one, str) for one in reasons):
            raise ConformanceError(
                f"validate_configuration: expected a list of reasons against {what} ({field}={value!r}), "
                f"got {reasons!r}"
            )


def cache_shape(setup: Setup) -> None:
    """The cache's shape has one dimension that counts blocks, and room for all that a block's tokens bring."""
    backend = setup.backend
    sizes = (setup.block_size, setup.num_kv_heads, setup.head_size, setup.kv_cache_dtype)
    shapes = [backend.get_kv_cache_shape(num_blocks, *sizes) for num_blocks in (7, 11)]
    for shape in shapes:
        if not isinstance(shape, tuple) or not all(type(size) is int and size > 0 for size in shape):
            raise ConformanceError(
                f"get_kv_cache_shape: expected a tuple of positive whole numbers, got {shape!r}"
            )
    differing = [dim for dim, (a, b) in enumerate(zip(*shapes, strict=False)) if a != b]
    if len(shapes[0]) != len(shapes[1]) or len(differing) != 1 or shapes[0][differing[0]] != 7:
        raise ConformanceError(
            "get_kv_cache_shape: expected one dimension that is the number of blocks, whatever it is, got "
            f"{shapes[0]} for 7 blocks and {shapes[1]} for 11"
        )
    block_dim = backend.get_kv_cache_block_dim(*sizes)
    if block_dim != differing[0]:
        raise ConformanceError(
            f"get_kv_cache_block_dim: expected {differing[0]}, where {shapes[0]} counts its 7 blocks, got {block_dim}"
        )
    room = torch.Size(shapes[0]).numel() // 7
    rows = 1 if backend.is_mla() else 2
    needed = setup.block_size * setup.num_kv_heads * setup.head_size * rows
    if room < needed:
        what = "rows of latents" if backend.is_mla() else "keys and values"
        raise ConformanceError(
            f"get_kv_cache_shape: expected room for {needed} numbers in a block ({what} of {setup.block_size} tokens, "
            f"{setup.num_kv_heads} kv heads, head size {setup.head_size}), got {room} of {shapes[0]}"
        )


def builder_metadata(setup: Setup) -> None:
    """Metadata says what this step's batch says: what it shares names with has the same numbers, each step anew."""
    trial = Trial(setup)
    size = setup.block_size
    requests = [trial.request(length) for length in (size + 3, 3, 2 * size + 2)]
    for computed in ((size, 1, 2 * size), (size + 1, 2, 2 * size + 1)):
        for request, num_computed in zip(requests, computed, strict=True):
            request.num_computed = num_computed
        common, _ = trial.metadata([(request, 1) for request in requests])
        before = _numbers(common)
        attn_metadata = trial.builder.build(0, common)
        if attn_metadata is None:
            raise ConformanceError("build: expected this step's metadata, got None")
        _expect_same_numbers("build changed the batch's", before, _numbers(common))
        _expect_fields(attn_metadata, common)


# What metadata may call it, and where the batch has it.
_FIELDS = {
    "num_actual_tokens": "num_actual_tokens",
    "max_query_len": "max_query_len",
    "query_start_loc": "query_start_loc",
    "seq_lens": "seq_lens",
    "block_table": "block_table_tensor",
    "block_table_tensor": "block_table_tensor",
    "slot_mapping": "slot_mapping",
}


def _numbers(common: CommonAttentionMetadata) -> dict[str, Any]:
    return {name: _plain(getattr(common, name)) for name in sorted(set(_FIELDS.values()))}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else value


def _expect_same_numbers(what: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, numbers in before.items():
        if after[name] != numbers:
            raise ConformanceError(f"{what} {name}: expected {numbers}, as it was, got {after[name]}")


def _expect_fields(attn_metadata: Any, common: CommonAttentionMetadata) -> None:
    kind = type(attn_metadata).__name__
    for field, source in _FIELDS.items():
        if not hasattr(attn_metadata, field):
            continue
        got, expected = _plain(getattr(attn_metadata, field)), _plain(getattr(common, source))
        if got != expected:
            raise ConformanceError(
                f"{kind}.{field}: expected {expected}, as this step's batch has it{_why(field)}, got {got}"
            )


def _why(field: str) -> str:
    return " (this step's tokens counted)" if field == "seq_lens" else ""
