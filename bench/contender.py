"""Who is measured: one interface for our kernels and for every peer."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bench.inputs import Inputs

# An output is rounded once, and the softmax weights are: two roundings of bfloat16.
ERROR_LIMIT = 2 * 2.0**-8


class Unsupported(Exception):
    """A contender does not do this case. The text says why, and goes into the results."""


@dataclass(frozen=True)
class Contender:
    """One way to compute a case's output.

    prepare: takes the inputs, does once what an engine does once a step or less often (plans, workspaces, layouts), and
        returns the call that is timed. The call allocates on the current stream or not at all, can be captured in a CUDA
        graph, and returns the output as `Inputs.error` takes it. Raises Unsupported, or ImportError where the peer is
        not on this machine.
    ours: one of our kernels, else a peer.
    paged: reads the paged cache. What reads dense keys and values shows the cost of paging and is no one's rival.
    note: what a reader of its numbers has to know.
    error_limit: the largest relative error that still is the right answer.
    """

    name: str
    prepare: Callable[[Inputs], Callable[[], Any]]
    ours: bool = False
    paged: bool = True
    note: str = ""
    error_limit: float = ERROR_LIMIT

    def describe(self) -> dict[str, Any]:
        """For the file of results."""
        return {"ours": self.ours, "paged": self.paged, "note": self.note}


def refuse(condition: bool, why: str) -> None:
    """Raise Unsupported(why) if `condition` holds."""
    if condition:
        raise Unsupported(why)


def refuse_unusual(inputs: Inputs, *, window: bool = False, fp8: bool = False, latent: bool = False) -> None:
    """Raise Unsupported for each unusual feature of the case that the caller does not say it has."""
    case = inputs.case
    refuse(case.sliding_window is not None and not window, "no sliding window")
    refuse(case.kv_dtype != "bfloat16" and not fp8, "no fp8 cache")
    refuse(case.latent_size is not None and not latent, "no latent attention")


@functools.cache
def shared_buffer(num_bytes: int, device: torch.device) -> torch.Tensor:
    """Scratch memory that contenders may share, because they run one after the other. Zeros at first."""
    return torch.zeros(num_bytes, dtype=torch.uint8, device=device)
