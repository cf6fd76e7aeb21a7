"""What a value is, in a few words: enough to recognise it in a tree of calls, and nothing that keeps it alive."""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any

from course.trace.tree import Value

LONGEST = 40  # characters of a string, a number or a name
MOST = 8  # items of a list
MOST_FIELDS = 24  # of an object: the metadata of a batch is to be seen whole
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range, slice)
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)


def describe(value: Any) -> Value:
    """A tensor or array by dtype and shape, a plain value by itself, another object by its type's name.

    Tuples, lists, dicts, dataclasses and named tuples show their items and fields one level deep: that is where
    metadata keeps its tensors. No method of a stranger's object is called but for `shape` and `dtype`.
    """
    if (tensor := _tensor(value)) is not None:
        return tensor
    return Value(_text(value, inside=False))


def _tensor(value: Any) -> Value | None:
    kind: Any = type(value)
    try:
        if not _may_be_tensor(kind):
            return None
        shape, dtype = tuple(int(size) for size in value.shape), str(value.dtype).removeprefix("torch.")
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return None
    return Value(f"{dtype} {list(shape)}", shape, dtype)


@functools.lru_cache(maxsize=1024)
def _may_be_tensor(kind: type) -> bool:
    """torch's tensors and NumPy's arrays, and what is derived from them, without importing either."""
    return any(base.__module__ in ("torch", "numpy") for base in kind.__mro__)


def _text(value: Any, inside: bool) -> str:
    if isinstance(value, type):
        return f"class {value.__qualname__}"
    kind = type(value)
    if kind.__module__ == "torch" and kind.__name__ in ("dtype", "device"):
        return str(value).removeprefix("torch.")
    if kind.__module__ == "torch" and kind.__name__ == "Size":
        return str(list(value))
    if kind in _PLAIN:
        said = repr(value)
        return said if len(said) <= LONGEST else said[: LONGEST - 1] + "…"
    if not inside:
        if kind in (tuple, list):
            return _listed(
                "(" if kind is tuple else "[", [(None, item) for item in value], ")" if kind is tuple else "]"
            )
        if kind is dict:
            return _listed(
                "{",
                [(_text(key, inside=True), item) for key, item in list(value.items())[: MOST + 1]],
                "}",
                ": ",
                len(value),
            )
        if (fields := _fields(value)) is not None:
            return _listed(f"{kind.__qualname__}(", fields, ")", "=", most=MOST_FIELDS)
    return value.__qualname__ if isinstance(value, _FUNCTIONS) else kind.__qualname__


def _fields(value: Any) -> list[tuple[str | None, Any]] | None:
    """The stored fields of a dataclass or a named tuple: (name, value). Nothing is computed for it."""
    if dataclasses.is_dataclass(value):
        stored = getattr(value, "__dict__", {})
        return [
            (field.name, stored[field.name]) for field in dataclasses.fields(value) if field.name in stored
        ]
    names = getattr(type(value), "_fields", None)
    if isinstance(value, tuple) and isinstance(names, tuple):
        return list(zip(names, value, strict=False))
    return None


def _listed(
    start: str,
    items: list[tuple[str | None, Any]],
    end: str,
    between: str = "",
    length: int | None = None,
    most: int = MOST,
) -> str:
    shown = []
    for name, item in items[:most]:
        tensor = _tensor(item)
        text = tensor.text if tensor is not None else _text(item, inside=True)
        shown.append(text if name is None else f"{name}{between}{text}")
    left = (len(items) if length is None else length) - len(shown)
    return start + ", ".join(shown + ([f"{left} more"] if left > 0 else [])) + end
