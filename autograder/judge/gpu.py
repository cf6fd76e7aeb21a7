"""Whether the judge's own process can use the GPU."""

from __future__ import annotations

import torch

from autograder.judge.proxy import RemoteError


def trouble(raised: BaseException | None = None) -> str | None:
    """What keeps this process from using the GPU, or None: also where it has not used one so far.

    raised: what the test that has just run raised; want of memory on this side shows there and may be gone a moment later.
    """
    if not torch.cuda.is_initialized():
        return None
    if isinstance(raised, torch.OutOfMemoryError) and not isinstance(raised, RemoteError):
        return f"the judge finds no memory on the GPU: {str(raised).splitlines()[0][:200]}"
    try:
        torch.cuda.empty_cache()
        torch.ones(1024, device="cuda").sum().item()
    except RuntimeError as error:
        return f"the judge cannot use the GPU: {str(error).splitlines()[0][:200]}"
    return None
