"""Which backend serves a model on this machine, and why not the others.

Every candidate is asked for its reasons against the configuration; the first without any is taken. A user can name
one instead: it is asked too, and refused with its reasons. No environment variable decides, and the sliding window is
no question, both as in vLLM 0.22.1, `vllm/v1/attention/selector.py:52` (`get_attn_backend`).
"""

from typing import NamedTuple

import torch

from kernels.backends.backend import AttentionBackend
from kernels.backends.kv_cache_interface import kv_cache_torch_dtype
from kernels.backends.platforms import DeviceCapability, get_device_capability
from kernels.backends.registry import AttentionBackendEnum

__all__ = [
    "AttentionSelectorConfig",
    "explain_attn_backend",
    "get_attn_backend",
    "get_backend_priorities",
    "get_valid_backends",
]


class AttentionSelectorConfig(NamedTuple):
    """What backends are asked about.

    head_size: for MLA the latent and the key part for the position together. dtype: the model's.
    kv_cache_dtype: "auto" for the model's, or a name that `kv_cache_torch_dtype` takes.
    block_size: the user's, or None when the backend is to decide.

    vLLM has six fields besides, from use_sparse to use_batch_invariant,
    `vllm/v1/attention/selector.py:21` (`AttentionSelectorConfig`).
    """

    head_size: int
    dtype: torch.dtype
    kv_cache_dtype: str | None
    block_size: int | None
    use_mla: bool = False
    has_sink: bool = False


def get_attn_backend(
    head_size: int,
    dtype: torch.dtype,
    kv_cache_dtype: str | None = "auto",
    block_size: int | None = None,
    use_mla: bool = False,
    has_sink: bool = False,
    *,
    backend: AttentionBackendEnum | str | None = None,
    device: torch.device | str | None = None,
) -> type[AttentionBackend]:
    """The class of the first candidate that has no reason against the configuration.

    backend: the user's choice: a member, its name in any case, or None or "auto" for none. In vLLM it stands in
        `vllm/config/attention.py:17` (`backend`), and block_size in the cache's configuration.
    device: where the model runs; None for where kernels run on this machine.
    Raises ValueError when none is valid, or the user's is not, with the reasons.
    """
    config = _make_config(head_size, dtype, kv_cache_dtype, block_size, use_mla, has_sink)
    capability = get_device_capability(device)
    selected = _parse_backend(backend)
    if selected is not None:
        reasons = selected.get_class().validate_configuration(
            **config._asdict(), device_capability=capability
        )
        if reasons:
            raise ValueError(
                f"Selected backend {selected.name} is not valid for this configuration. Reason: {reasons}"
            )
        return selected.get_class()

    valid, invalid_reasons = get_valid_backends(config, capability)
    if not valid:
        listed = ", ".join(f"{name.name}: [{', '.join(why)}]" for name, why in invalid_reasons.items())
        raise ValueError(f"No valid attention backend found with {config}. Reasons: {{{listed}}}")
    return valid[0].get_class()


def explain_attn_backend(
    head_size: int,
    dtype: torch.dtype,
    kv_cache_dtype: str | None = "auto",
    block_size: int | None = None,
    use_mla: bool = False,
    has_sink: bool = False,
    *,
    device: torch.device | str | None = None,
) -> dict[str, list[str]]:
    """Every candidate's reasons against the configuration, in the order in which they are asked. An empty list: it is valid."""
    config = _make_config(head_size, dtype, kv_cache_dtype, block_size, use_mla, has_sink)
    capability = get_device_capability(device)
    _, invalid_reasons = get_valid_backends(config, capability)
    candidates = get_backend_priorities(use_mla, capability)
    return {candidate.name: invalid_reasons.get(candidate, []) for candidate in candidates}


def get_backend_priorities(
    use_mla: bool, device_capability: DeviceCapability | None
) -> list[AttentionBackendEnum]:
    """The candidates, the fastest on such a device first. A CPU runs torch faster than Triton's interpreter.

    CUSTOM is no candidate: the user has to choose it. vLLM's order is in
    `vllm/platforms/cuda.py:79` (`_get_backend_priorities`).
    """
    if use_mla:
        return [AttentionBackendEnum.TRITON_MLA]
    if device_capability is None:
        return [
            AttentionBackendEnum.PAGED_TORCH,
            AttentionBackendEnum.DENSE_TORCH,
            AttentionBackendEnum.TRITON_ATTN,
            AttentionBackendEnum.HOPPER_ATTN,
        ]
    return [
        AttentionBackendEnum.HOPPER_ATTN,
        AttentionBackendEnum.TRITON_ATTN,
        AttentionBackendEnum.PAGED_TORCH,
        AttentionBackendEnum.DENSE_TORCH,
    ]


def get_valid_backends(
    config: AttentionSelectorConfig, device_capability: DeviceCapability | None
) -> tuple[list[AttentionBackendEnum], dict[AttentionBackendEnum, list[str]]]:
    """(the candidates without a reason against them, the others' reasons), both in the order of priority.

    As `vllm/platforms/cuda.py:258` (`get_valid_backends`).
    """
    valid: list[AttentionBackendEnum] = []
    invalid_reasons: dict[AttentionBackendEnum, list[str]] = {}
    for candidate in get_backend_priorities(config.use_mla, device_capability):
        reasons = candidate.get_class().validate_configuration(
            **config._asdict(), device_capability=device_capability
        )
        if reasons:
            invalid_reasons[candidate] = reasons
        else:
            valid.append(candidate)
    return valid, invalid_reasons


def _make_config(
    head_size: int,
    dtype: torch.dtype,
    kv_cache_dtype: str | None,
    block_size: int | None,
    use_mla: bool,
    has_sink: bool,
) -> AttentionSelectorConfig:
    if isinstance(head_size, bool) or not isinstance(head_size, int) or head_size < 1:
        raise ValueError(f"head_size: expected a whole number of at least 1, got {head_size!r}")
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype: expected a torch.dtype, got {dtype!r}")
    if kv_cache_dtype is not None:
        kv_cache_torch_dtype(kv_cache_dtype, dtype)
    if block_size is not None and (
        isinstance(block_size, bool) or not isinstance(block_size, int) or block_size < 1
    ):
        raise ValueError(f"block_size: expected None or a whole number of at least 1, got {block_size!r}")
    return AttentionSelectorConfig(head_size, dtype, kv_cache_dtype, block_size, use_mla, has_sink)


def _parse_backend(backend: AttentionBackendEnum | str | None) -> AttentionBackendEnum | None:
    if isinstance(backend, str):
        if backend.lower() == "auto":
            return None
        found: AttentionBackendEnum = AttentionBackendEnum[backend.upper()]
        return found
    if backend is not None and not isinstance(backend, AttentionBackendEnum):
        raise ValueError(f"backend: expected an AttentionBackendEnum, its name or None, got {backend!r}")
    return backend
