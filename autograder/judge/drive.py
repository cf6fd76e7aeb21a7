"""A learner's backend for latents, driven by plain data: requests come in as numbers and tensors, and so do replies go out.

It runs where the answer is: beside the learner in the notebook's own process, and in grading in the worker. Everything that is
decided is decided elsewhere, on outputs alone (`autograder.driven`). What it says of where a method stands or who was called
is said by the learner's process, as in `observe`: it tells somebody honest what to mend.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

COMMON = ("query_start_loc", "query_start_loc_cpu", "seq_lens", "block_table_tensor", "slot_mapping")
# What metadata may have by the same name as the batch has it.
SHARED = ("num_actual_tokens", "max_query_len", "block_table", *COMMON)
# Of each class, the methods of which it is told where they stand.
METHODS = {
    "LatentBackend": ("get_kv_cache_shape", "validate_configuration"),
    "LatentImpl": ("do_kv_cache_update", "forward_mqa", "forward_mha"),
    "LatentMetadataBuilder": ("build",),
}


class HandedOn(Exception):
    """The answer has our own impl attend, which is the exercise. Nothing was computed."""


class Driver:
    """One backend under test. Called with the name of a request and its arguments; its objects are known by numbers."""

    def __init__(self, backend: Any, impl: Any, builder: Any) -> None:
        self._classes = {"LatentBackend": backend, "LatentImpl": impl, "LatentMetadataBuilder": builder}
        self._backend = backend
        self._impls: list[Any] = []
        self._builders: list[Any] = []
        self._metadata: list[Any] = []
        self._memory = _Memory()
        self._called: set[str] = set()
        self._watching = False

    def __call__(self, request: str, *arguments: Any) -> Any:
        return getattr(self, f"_{request}")(*arguments)

    def _objection(self) -> str:
        """What keeps these three from being a backend at all, or ""."""
        from kernels import backends

        bases = (backends.AttentionBackend, backends.MLAAttentionImpl, backends.AttentionMetadataBuilder)
        for (name, given), base in zip(self._classes.items(), bases, strict=True):
            if not (isinstance(given, type) and issubclass(given, base)):
                return f"{name} must be a class derived from {base.__name__}"
        for method, name in (("get_impl_cls", "LatentImpl"), ("get_builder_cls", "LatentMetadataBuilder")):
            if getattr(self._backend, method)() is not self._classes[name]:
                return f"{method} must return {name}"
        return ""

    def _places(self) -> dict[str, str]:
        """ "LatentImpl.forward_mqa": the module of the class that defines it, "" where no class does."""
        return {
            f"{name}.{method}": next(
                (str(each.__module__) for each in self._classes[name].__mro__ if method in vars(each)), ""
            )
            for name, methods in METHODS.items()
            for method in methods
        }

    def _ask(self, method: str, arguments: dict[str, Any]) -> Any:
        """What the backend's class says. A device's capability comes as a tuple, block sizes go as numbers."""
        from kernels import backends

        capability = arguments.get("device_capability")
        if capability is not None:
            arguments = arguments | {"device_capability": backends.DeviceCapability(*capability)}
        said = getattr(self._backend, method)(**arguments)
        if method == "get_supported_kernel_block_sizes":
            return [one.base if isinstance(one, backends.MultipleOf) else one for one in said]
        return tuple(said) if isinstance(said, torch.Size) else said

    def _graphs(self) -> str:
        return str(self._backend.get_builder_cls().get_cudagraph_support().name)

    def _make_impl(self, arguments: dict[str, Any]) -> int:
        self._impls.append(self._backend.get_impl_cls()(**arguments))
        return len(self._impls) - 1

    def _make_builder(self, spec: dict[str, Any], layer_names: list[str], device: str) -> int:
        from kernels import backends

        made = self._backend.get_builder_cls()(
            backends.AttentionSpec(**spec), layer_names, torch.device(device)
        )
        self._builders.append(made)
        return len(self._builders) - 1

    def _build(self, number: int, prefix: int, common: dict[str, Any], capture: bool) -> dict[str, Any]:
        """Number of the metadata, and those of its attributes that the batch has too."""
        builder = self._builders[number]
        with self._batch(common) as batch, self._watched():
            made = builder.build_for_cudagraph_capture(batch) if capture else builder.build(prefix, batch)
        self._metadata.append(made)
        fields = {name: getattr(made, name) for name in SHARED if hasattr(made, name)}
        plain = {name: value for name, value in fields.items() if type(value) in (int, list, torch.Tensor)}
        return {"number": len(self._metadata) - 1, "none": made is None, "fields": plain}

    def _update(
        self, number: int, kv_c: Any, k_pe: Any, cache: Any, slots: Any, cache_dtype: str, scale: Any
    ) -> None:
        kept = self._memory.hold(f"cache {number}", cache)
        with self._watched():
            self._impls[number].do_kv_cache_update(kv_c, k_pe, kept, slots, cache_dtype, scale)
        cache.copy_(kept)

    def _attend(
        self, number: int, q: Any, cache: Any, metadata: int, common: dict[str, Any], layer: dict[str, Any]
    ) -> Any:
        """What forward_mqa returns. The batch's tensors come along: they are the engine's, and may have changed since."""
        kept = self._memory.hold(f"cache {number}", cache)
        if q.device.type == "cuda":
            # Freed at once, it is most likely what torch gives out next: an output that nobody fills shows.
            q.new_full((*q.shape[:2], layer["kv_lora_rank"]), float("nan"))
        with self._batch(common), self._watched(), _new_memory_is_nan(q.device):
            found = self._impls[number].forward_mqa(
                q, kept, self._metadata[metadata], SimpleNamespace(**layer)
            )
        cache.copy_(kept)
        return found

    def _watch(self) -> None:
        """From now on, functions of `kernels` that the answer's methods reach are noted."""
        self._watching = True

    def _reached(self) -> list[str]:
        """Functions of `kernels` that were reached, as "module:qualname"."""
        return sorted(self._called)[:500]

    @contextmanager
    def _batch(self, common: dict[str, Any]) -> Iterator[Any]:
        """The batch in memory that stays where it is from step to step; what is done to it shows in `common`."""
        from kernels import backends

        tensors = {name: self._memory.hold(name, common[name]) for name in COMMON}
        yield backends.CommonAttentionMetadata(**(common | tensors))
        for name, tensor in tensors.items():
            common[name].copy_(tensor)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Our own impl does not do the work in the meantime. With `watch`, notes every function of `kernels` that is reached."""
        from kernels.backends.triton_mla import TritonMLAImpl

        original = TritonMLAImpl.forward_mqa
        TritonMLAImpl.forward_mqa = _refuse_to_do_it  # type: ignore[method-assign]
        if self._watching:
            sys.setprofile(self._note)
        try:
            yield
        finally:
            if self._watching:
                sys.setprofile(None)
            TritonMLAImpl.forward_mqa = original  # type: ignore[method-assign]

    def _note(self, frame: Any, event: str, argument: Any) -> None:
        module = frame.f_globals.get("__name__")
        if event == "call" and type(module) is str and module.split(".")[0] == "kernels":
            self._called.add(f"{module}:{frame.f_code.co_qualname}"[:120])


def _refuse_to_do_it(*arguments: Any, **keywords: Any) -> Any:
    raise HandedOn("forward_mqa hands its work to TritonMLAImpl.forward_mqa")


class _Memory:
    """Tensors that lie at the same address at each call, as an engine's do: what comes over the wire is copied there."""

    def __init__(self) -> None:
        self._held: dict[str, torch.Tensor] = {}

    def hold(self, name: str, given: torch.Tensor) -> torch.Tensor:
        flat = self._held.get(name)
        if (
            flat is None
            or flat.numel() < given.numel()
            or (flat.dtype, flat.device) != (given.dtype, given.device)
        ):
            flat = torch.empty(max(4096, given.numel()), dtype=given.dtype, device=given.device)
            self._held[name] = flat
        held = flat[: given.numel()].view(given.shape)
        held.copy_(given)
        return held


def _new_memory_is_nan(device: torch.device) -> Any:
    from kernels.backends.conformance.trial import new_memory_is_nan

    return new_memory_is_nan(device)
