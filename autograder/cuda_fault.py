"""Errors that break a process's state on the GPU: how they are known, what is said of them, whether it can go on.

After a kernel has read or written where nothing is, CUDA refuses everything in that process until it ends.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import torch

LOST = "This process cannot use the GPU any more: restart the notebook's kernel and run its cells again"

# torch says "CUDA error: ...", Triton "Triton Error [CUDA]: ...", each with CUDA's own words. Triton says so of launches that
# were refused as well, which break nothing.
_TORCH = re.compile(r"CUDA error: ([^\n]*)")
_TRITON = re.compile(
    r"Triton Error \[CUDA\]: ([^\n]*(?:illegal|misaligned|assert|launch failure|stack error|invalid program)[^\n]*)"
)
_MEANINGS = {
    "illegal memory access": "your kernel read or wrote outside its tensors",
    "misaligned address": "your kernel read or wrote between two elements of a tensor",
    "device-side assert": "an index is outside its tensor",
}


def sentence(classes: Collection[str], text: str) -> str | None:
    """What to say of an exception, given the names of its classes and its text; None where it is of another kind.

    The same for one mistake in torch's words and in Triton's, in this process and in the judge's worker.
    """
    found = _TORCH.search(text) or _TRITON.search(text)
    if "OutOfMemoryError" in classes or not (found or "AcceleratorError" in classes):
        return None
    words = (found[1] if found else text.strip().partition("\n")[0]).strip()[:200]
    meaning = next(
        (told for part, told in _MEANINGS.items() if part in words), "your code went wrong on the GPU"
    )
    return f"{meaning}, which broke the GPU's state: {words}"


def sentence_about(error: BaseException) -> str | None:
    """`sentence` for an exception that was raised here."""
    return sentence([kind.__name__ for kind in type(error).__mro__], str(error))


def settle() -> None:
    """Waits for what this process has launched on a GPU: an error of a kernel belongs to the call that launched it."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def usable() -> bool:
    """Whether this process can go on: False once its state on the GPU is broken."""
    try:
        settle()
    except RuntimeError:
        return False
    return True
