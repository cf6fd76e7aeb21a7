"""What a backend is tried with: sizes that it says it takes, and a layer of these sizes."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from kernels import runtime
from kernels.backends.backend import AttentionBackend, MultipleOf
from kernels.backends.layer import Attention
from kernels.backends.mla_layer import MLAAttention
from kernels.backends.platforms import get_device_capability

__all__ = ["LAYER", "ConformanceError", "NotSupported", "Setup", "choose_setup", "make_layer", "with_options"]

# The layer's name.
LAYER = "model.layers.0.attn"


class ConformanceError(AssertionError):
    """A backend breaks the contract; the message says where, what was expected and what came."""


class NotSupported(Exception):
    """The backend says that it does not have the feature; the message says how it said so."""


@dataclass(frozen=True)
class Setup:
    """A backend and the sizes of the layer that it is tried with. For latents num_kv_heads is 1.

    seed: another one draws other numbers and scatters requests over other blocks.
    """

    backend: type[AttentionBackend]
    device: torch.device
    dtype: torch.dtype
    num_heads: int = 4
    num_kv_heads: int = 2
    head_size: int = 32
    block_size: int = 4
    sliding_window: int | None = None
    softcap: float | None = None
    alibi_slopes: tuple[float, ...] | None = None
    sinks: tuple[float, ...] | None = None
    kv_cache_dtype: str = "auto"
    # Not head_size ** -0.5: a backend that takes that of its own accord is noticed.
    relative_scale: float = 0.8
    seed: int = 0

    @property
    def scale(self) -> float:
        return self.relative_scale * float(self.head_size**-0.5)

    @property
    def value_size(self) -> int:
        """Numbers of a value: head_size, or for latents the largest power of two below it (512 of 576)."""
        return 1 << ((self.head_size - 1).bit_length() - 1) if self.backend.is_mla() else self.head_size

    @property
    def has_options(self) -> bool:
        """Whether the layer has something that a backend may refuse."""
        options = (self.sliding_window, self.softcap, self.alibi_slopes, self.sinks)
        return any(option is not None for option in options) or self.kv_cache_dtype != "auto"

    def objections(self) -> list[str]:
        """The backend's own reasons against this setup."""
        return self.backend.validate_configuration(
            head_size=self.head_size,
            dtype=self.dtype,
            kv_cache_dtype=self.kv_cache_dtype,
            block_size=self.block_size,
            use_mla=self.backend.is_mla(),
            has_sink=self.sinks is not None,
            device_capability=get_device_capability(self.device),
        )


def choose_setup(
    backend: type[AttentionBackend],
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Setup:
    """Small sizes that the backend says it takes. Raises ValueError with its reasons when it takes none."""
    if not (isinstance(backend, type) and issubclass(backend, AttentionBackend)):
        raise ValueError(f"backend: expected a subclass of AttentionBackend, got {backend!r}")
    place = torch.device(runtime.device() if device is None else device)
    if dtype is None:
        dtypes = (torch.float32, torch.float16, torch.bfloat16)
        dtype = next(filter(backend.supports_dtype, dtypes), torch.float32)
    head_sizes = [40, 72] if backend.is_mla() else [32, 64]
    head_sizes += sorted(backend.get_supported_head_sizes())
    block_sizes = [4, 16, *_block_sizes(backend)]
    setup = Setup(
        backend,
        place,
        dtype,
        num_kv_heads=1 if backend.is_mla() else 2,
        head_size=next(filter(backend.supports_head_size, head_sizes), head_sizes[0]),
        block_size=next(filter(backend.supports_block_size, block_sizes), 16),
    )
    if objections := setup.objections():
        raise ValueError(
            f"backend: {backend.get_name()} does not take this setup: {', '.join(objections)} "
            f"({str(setup.dtype).removeprefix('torch.')} on {setup.device}, head size {setup.head_size}, "
            f"blocks of {setup.block_size})"
        )
    return setup


def _block_sizes(backend: type[AttentionBackend]) -> list[int]:
    sizes = backend.get_supported_kernel_block_sizes()
    return sorted(size.base if isinstance(size, MultipleOf) else size for size in sizes)


def with_options(setup: Setup, **changes: Any) -> Setup:
    """The setup with other sizes or options. Raises NotSupported when the backend says that it does not take them."""
    changed = replace(setup, **changes)
    if objections := changed.objections():
        raise NotSupported(", ".join(objections))
    return changed


def make_layer(setup: Setup) -> Attention | MLAAttention:
    """A layer whose projections, for latents, are the identity: what the backend computes is what comes out."""
    try:
        if setup.backend.is_mla():
            rank = setup.value_size
            identity = torch.eye(rank, dtype=setup.dtype, device=setup.device).repeat(2 * setup.num_heads, 1)
            return MLAAttention(
                setup.num_heads,
                setup.scale,
                rank,
                setup.head_size - rank,
                rank,
                rank,
                identity,
                prefix=LAYER,
                attn_backend=setup.backend,
                kv_cache_dtype=setup.kv_cache_dtype,
            )
        extra: dict[str, Any] = {}
        if setup.sinks is not None:
            extra["sinks"] = torch.tensor(setup.sinks, dtype=torch.float32, device=setup.device)
        return Attention(
            setup.num_heads,
            setup.head_size,
            setup.scale,
            setup.num_kv_heads,
            None if setup.alibi_slopes is None else list(setup.alibi_slopes),
            setup.softcap,
            setup.sliding_window,
            prefix=LAYER,
            attn_backend=setup.backend,
            dtype=setup.dtype,
            kv_cache_dtype=setup.kv_cache_dtype,
            device=setup.device,
            **extra,
        )
    except NotImplementedError as refusal:
        if not setup.has_options:
            raise
        raise NotSupported(f"the impl says: {refusal}") from None
