"""The backends by name. Naming one imports nothing; asking for its class does.

As in vLLM, `vllm/v1/attention/backends/registry.py:34` (`AttentionBackendEnum`), which lists two dozen.
"""

from collections.abc import Callable
from enum import Enum, EnumMeta
from importlib import import_module
from typing import TypeVar

from kernels.backends.backend import AttentionBackend

__all__ = ["AttentionBackendEnum", "register_backend"]

BackendClass = TypeVar("BackendClass", bound=type[AttentionBackend])


class _AttentionBackendEnumMeta(EnumMeta):
    def __getitem__(cls, name: str):  # type: ignore[no-untyped-def]
        """The member of that name. Raises ValueError with the names that there are."""
        try:
            return super().__getitem__(name)
        except KeyError:
            raise ValueError(
                f"Unknown attention backend: {name!r}. Valid options are: {', '.join(cls.__members__)}"
            ) from None


class AttentionBackendEnum(Enum, metaclass=_AttentionBackendEnumMeta):
    """Each member's value is the path of its class. `register_backend` puts another in its place."""

    DENSE_TORCH = "kernels.backends.dense_torch.DenseTorchBackend"
    PAGED_TORCH = "kernels.backends.paged_torch.PagedTorchBackend"
    TRITON_ATTN = "kernels.backends.triton_attn.TritonAttentionBackend"
    HOPPER_ATTN = "kernels.backends.hopper_attn.HopperAttentionBackend"
    TRITON_MLA = "kernels.backends.triton_mla.TritonMLABackend"
    # A place for a backend from outside: registered before it is used.
    CUSTOM = None

    def get_path(self) -> str:
        """The class as "module.Class". Raises ValueError for CUSTOM while nothing is registered."""
        overriding = _ATTN_OVERRIDES.get(self, self.value)
        if overriding is None:
            raise ValueError(
                f"Backend {self.name} must be registered before use. "
                f"Use register_backend(AttentionBackendEnum.{self.name})"
            )
        if isinstance(overriding, str):
            return overriding
        return f"{overriding.__module__}.{overriding.__qualname__}"

    def get_class(self) -> type[AttentionBackend]:
        """The class, imported now if need be. Raises ValueError for CUSTOM while nothing is registered."""
        overriding = _ATTN_OVERRIDES.get(self)
        if isinstance(overriding, type):
            return overriding
        module, name = self.get_path().rsplit(".", 1)
        found: type[AttentionBackend] = getattr(import_module(module), name)
        return found

    def is_overridden(self) -> bool:
        return self in _ATTN_OVERRIDES

    def clear_override(self) -> None:
        """Back to the class that came with the package."""
        _ATTN_OVERRIDES.pop(self, None)


# vLLM keeps paths only. A class of a notebook has none that can be imported, so here it may be the class itself.
_ATTN_OVERRIDES: dict[AttentionBackendEnum, str | type[AttentionBackend]] = {}


def register_backend(
    backend: AttentionBackendEnum, class_path: str | None = None
) -> Callable[[BackendClass], BackendClass]:
    """Put a class in a member's place: as a decorator, or by its path.

        @register_backend(AttentionBackendEnum.CUSTOM)
        class LatentBackend(AttentionBackend): ...

        register_backend(AttentionBackendEnum.TRITON_ATTN, "my_package.MyTritonBackend")

    The decorator raises ValueError for what is no AttentionBackend.
    """
    if class_path is not None:
        _ATTN_OVERRIDES[backend] = class_path
        return lambda cls: cls

    def decorator(cls: BackendClass) -> BackendClass:
        if not (isinstance(cls, type) and issubclass(cls, AttentionBackend)):
            raise ValueError(f"backend: expected a subclass of AttentionBackend, got {cls!r}")
        _ATTN_OVERRIDES[backend] = cls
        return cls

    return decorator
