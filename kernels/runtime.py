"""Where Triton kernels run on this machine: compiled on a CUDA GPU, or in Triton's interpreter on the CPU.

Triton decides between the two when a function is decorated, and its own library (`tl.sum`, `tl.cdiv`, ...) is
decorated by `import triton`. So TRITON_INTERPRET has to be in the environment before that, and `import
kernels` puts it there: a kernel that a notebook defines later runs in the interpreter too.
"""

import functools
import importlib
import os

import torch

from kernels import interpreter

__all__ = [
    "INTERPRET",
    "check_launch",
    "describe",
    "device",
    "hopper_objection",
    "interpreter_tile",
    "num_multiprocessors",
    "shared_memory",
]


def _choose_interpreter() -> bool:
    """True when kernels are to run in the interpreter. A TRITON_INTERPRET that the user set decides."""
    setting = os.environ.get("TRITON_INTERPRET", "").strip().lower()
    if setting:
        return setting in ("1", "true", "yes", "on", "y")
    if torch.cuda.is_available():
        return False
    os.environ["TRITON_INTERPRET"] = "1"
    return True


INTERPRET = _choose_interpreter()


def device() -> torch.device:
    """The device that tensors must be on for the Triton kernels: cpu with the interpreter, cuda without."""
    return torch.device("cpu" if INTERPRET else "cuda")


def describe() -> str:
    """Where kernels run: "NVIDIA H200 (compute capability 9.0)", say, or "CPU (Triton interpreter)"."""
    if INTERPRET:
        return "CPU (Triton interpreter)"
    if not torch.cuda.is_available():
        return "nowhere (no CUDA GPU, and TRITON_INTERPRET turns the interpreter off)"
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} (compute capability {major}.{minor})"


def check_launch(name: str, tensor: torch.Tensor) -> None:
    """Refuse a launch that cannot work here. `name` is the argument that `tensor` was passed as.

    Raises RuntimeError when this process cannot run Triton kernels at all, ValueError when it cannot run them
    on `tensor`.
    """
    _check_triton()
    if tensor.device.type != device().type:
        raise ValueError(
            f"{name}: expected a tensor on {device().type} (kernels run on: {describe()}), "
            f"got one on {tensor.device}"
        )
    if INTERPRET and tensor.dtype == torch.bfloat16:
        raise ValueError(
            f"{name}: expected float16 or float32, got bfloat16, which Triton's interpreter computes "
            "wrongly; bfloat16 needs a GPU (kernels.reference takes it everywhere)"
        )


def interpreter_tile(num_rows: int, head_size_padded: int, max_seq_len: int) -> int:
    """TILE_SIZE in the interpreter, where an operation costs about the same for any size: few large tiles are fast.

    The limit is tl.dot, which is NumPy's matrix product there: above 2**18 multiply-adds OpenBLAS starts threads,
    and on a machine that is busy waiting for them can take a thousand times as long as the product.
    """
    largest = 2**18 // (num_rows * head_size_padded)
    enough = 1 << (max_seq_len - 1).bit_length() if max_seq_len > 1 else 1
    return max(16, min(largest, enough, 256))


@functools.cache
def num_multiprocessors(device: torch.device) -> int:
    """How many multiprocessors `device` has; 1 in the interpreter, which runs one program at a time."""
    if INTERPRET:
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@functools.cache
def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that one program can have on `device`; as many as it likes in the interpreter."""
    if INTERPRET:
        return 1 << 30
    properties = torch.cuda.get_device_properties(device)
    # What a program can ask for is more than what it gets unasked.
    return int(getattr(properties, "shared_memory_per_block_optin", properties.shared_memory_per_block))


@functools.cache
def _check_triton() -> None:
    if not INTERPRET:
        if not torch.cuda.is_available():
            setting = os.environ["TRITON_INTERPRET"]
            raise RuntimeError(
                f"this machine has no CUDA GPU, and TRITON_INTERPRET={setting} turns Triton's interpreter "
                "off; unset TRITON_INTERPRET and start Python again"
            )
        return

    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction

    if not isinstance(tl.sum, InterpretedFunction):
        raise RuntimeError(
            "triton was imported before kernels, without its interpreter, on a machine where kernels need "
            "it; restart Python (in a notebook: restart the kernel) and import kernels before triton, or set "
            "TRITON_INTERPRET=1"
        )
    interpreter.prepare()


def hopper_objection(device: torch.device, kernel_module: str) -> str | None:
    """Why the Gluon program for Hopper GPUs in kernels/`kernel_module`.py cannot run on `device`; None when it can."""
    if INTERPRET or device.type != "cuda":
        return "Gluon has no interpreter: it needs a CUDA GPU"
    return _gpu_objection(device, kernel_module)


@functools.cache
def _gpu_objection(device: torch.device, kernel_module: str) -> str | None:
    if torch.cuda.get_device_capability(device)[0] != 9:
        return "it uses instructions that only Hopper GPUs have (compute capability 9.0)"
    try:
        importlib.import_module(f"kernels.{kernel_module}")
    except (ImportError, AttributeError) as error:
        return f"this Triton has no Gluon that it understands ({error})"
    return None
