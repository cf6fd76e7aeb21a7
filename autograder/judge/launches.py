"""The Triton kernels that a call launches: which, on how many programs, and whether its result is theirs.

As observe.py: it runs where the answer is, and tells somebody honest what to mend.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Launches:
    """ran: how often, by the kernel's module and name. programs_on_keys: of the launches that were handed the key cache.
    handed: the memory that launches were handed, by address.
    """

    ran: Counter[tuple[str, str]] = field(default_factory=Counter)
    programs_on_keys: int = 0
    handed: dict[int, torch.UntypedStorage] = field(default_factory=dict)

    def own(self) -> Counter[str]:
        return Counter({name: n for (module, name), n in self.ran.items() if not _is_ours(module)})

    def borrowed(self) -> list[str]:
        return sorted({f"{module}.{name}" for module, name in self.ran if _is_ours(module)})


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == "kernels"


@contextmanager
def watched(key_cache: torch.Tensor) -> Iterator[Launches]:
    """What is launched within the block."""
    found = Launches()
    keys = key_cache.untyped_storage().data_ptr()

    def counting(run: Any) -> Any:
        def counted(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
            shapes: list[Any] = [] if callable(grid) else [grid]

            def noted(meta: Any) -> Any:
                shapes.append(grid(meta))
                return shapes[-1]

            result = run(self, *args, grid=noted if callable(grid) else grid, warmup=warmup, **kwargs)
            if not warmup:
                found.ran[(str(self.fn.__module__)[:100], str(self.fn.__name__)[:100])] += 1
                tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
                memory = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
                found.handed |= memory
                if shapes and keys in memory:
                    found.programs_on_keys += math.prod(shapes[-1])
            return result

        return counted

    with _in_place_of_run(counting):
        yield found


def make_no_difference(
    function: Callable[..., Any], given: dict[str, Any], result: Any, launched: Launches
) -> bool:
    """Whether `function` returns the same when its own kernels do nothing, so that something else computes it.

    launched: by the call that gave `result`. What those launches were handed, but for the arguments, holds NaN meanwhile, since
    a function may keep it; and so do tensors that are not filled, which may come to lie where the kernels' output was.
    """
    if not isinstance(result, torch.Tensor) or not bool((result != 0).any()):
        return False
    right = result.double()
    arguments = {v.untyped_storage().data_ptr() for v in given.values() if isinstance(v, torch.Tensor)}
    memory = [storage for address, storage in launched.handed.items() if address not in arguments]

    def idle(run: Any) -> Any:
        def maybe(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
            if warmup or _is_ours(str(self.fn.__module__)):
                return run(self, *args, grid=grid, warmup=warmup, **kwargs)
            return None

        return maybe

    with _spoilt(memory), _in_place_of_run(idle), _nothing_is_left_in_memory():
        try:
            without = function(*given.values())
        except Exception:  # it looks at what the kernels wrote
            return False
        if not isinstance(without, torch.Tensor) or without.shape != right.shape:
            return False
        difference = (without.double() - right).abs().max()
    return bool(difference <= 0.01 * right.abs().max())


@contextmanager
def _spoilt(memory: list[torch.UntypedStorage]) -> Iterator[None]:
    """Within the block it holds nothing but ones in every bit: NaN in every dtype of floating point."""
    held = [torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage) for storage in memory]
    kept = [one.clone() for one in held]
    for one in held:
        one.fill_(255)
    try:
        yield
    finally:
        for one, before in zip(held, kept, strict=True):
            one.copy_(before)


@contextmanager
def _in_place_of_run(made: Callable[[Any], Any]) -> Iterator[None]:
    """Within the block each launch goes through made(run), compiled or interpreted."""
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    originals = [(kind, kind.run) for kind in (JITFunction, InterpretedFunction)]
    for kind, run in originals:
        kind.run = made(run)
    try:
        yield
    finally:
        for kind, run in originals:
            kind.run = run


@contextmanager
def _nothing_is_left_in_memory() -> Iterator[None]:
    """Within the block torch fills what it allocates: that is part of its deterministic mode."""
    mode, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    setting: Any = torch.utils.deterministic
    fills = setting.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        setting.fill_uninitialized_memory = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(mode, warn_only=warns)
        setting.fill_uninitialized_memory = fills
