"""What the selector knows of the machine. In vLLM a whole layer, `vllm/platforms/interface.py:60` (`DeviceCapability`)."""

from typing import NamedTuple

import torch

from kernels import runtime

__all__ = ["DeviceCapability", "get_device_capability"]


class DeviceCapability(NamedTuple):
    """A GPU's compute capability, (9, 0) for an H100 or H200. A CPU has None."""

    major: int
    minor: int


def get_device_capability(device: torch.device | str | None = None) -> DeviceCapability | None:
    """The compute capability of `device`, None for a CPU. Without an argument: of where kernels run."""
    device = torch.device(runtime.device() if device is None else device)
    return DeviceCapability(*torch.cuda.get_device_capability(device)) if device.type == "cuda" else None
