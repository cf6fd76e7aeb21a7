"""What stands on the judge's side for an object that stays in the worker.

A proxy looks like nothing but itself: it equals only itself, is of a class that has the object's class name (so that a
message can say "a ndarray"), and reaches the object by calls and attributes alone.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any, Protocol

import torch

Tell = Callable[[Any], Any]  # the judge's answer to what a call asks


class Reach(Protocol):
    """What a proxy needs of the session that made it: an attribute of its object, and a call of it."""

    def attribute(self, proxy: Proxy, name: str) -> Any: ...

    def call(
        self,
        proxy: Proxy,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        by: str | None = None,
        tell: Tell | None = None,
    ) -> Any: ...


class Proxy:
    """An object in the worker. `_origin` is the learner's name for it, under which a new worker has it again.

    `_blame`: the name whose faults are counted with this object's, where it was made of what has that name.
    """

    def __init__(self, session: Reach, generation: int, number: int, origin: str | None = None) -> None:
        self._session = session
        self._generation = generation
        self._number = number
        self._origin = origin
        self._blame: str | None = None

    def __getattr__(self, name: str) -> Any:
        # Python's and torch's protocols ask objects about themselves: that is not the learner's object's affair.
        if name.startswith("_"):
            raise AttributeError(name)
        return self._session.attribute(self, name)


class CallableProxy(Proxy):
    """A function, or another object that can be called, in the worker."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._session.call(self, args, kwargs)

    def _observed(self, arguments: dict[str, Any], spread: bool, count: bool) -> Any:
        """As `observe.observed`, in the worker."""
        return self._session.call(self, (arguments,), {"spread": spread, "count": count}, by="observed")

    def _raced(self, rival: Any, arguments: dict[str, Any], more: list[Any], queries: torch.Tensor) -> Any:
        """As `observe.raced`, in the worker."""
        return self._session.call(self, (rival, arguments, more, queries), {}, by="raced")

    def _with_backend(self, tell: Tell, case: dict[str, Any] | None) -> Any:
        """As `observe.with_backend`, in the worker; `tell` answers here what it asks."""
        return self._session.call(self, (case,), {}, by="with_backend", tell=tell)

    def _driver(self, impl: Any, builder: Any) -> Any:
        """As `observe.driver`, in the worker."""
        made = self._session.call(self, (impl, builder), {}, by="driver")
        if isinstance(made, Proxy):
            made._blame = self._origin
        return made

    def _with_function(self, source: str, name: str) -> Any:
        """As `observe.with_function`, in the worker."""
        return self._session.call(self, (source, name), {}, by="with_function")


class RemoteError(Exception):
    """Learner's code raised. `line_in_answer` is the line of theirs that it last passed through."""

    line_in_answer: str = ""

    def __str__(self) -> str:
        return str(self.args[0])


def proxy_class(type_name: str, is_callable: bool) -> type[Proxy]:
    """A class of proxies with the name of the object's own class."""
    base = CallableProxy if is_callable else Proxy
    return type(clean(type_name) or "object", (base,), {})


def clean(text: str) -> str:
    """A learner's text such that it can be written anywhere: no null characters, no halves of characters."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def remote_error(type_name: str, bases: list[str], message: str, line: str) -> RemoteError:
    """An exception like the learner's: of a class with its name, and an instance of the built-in classes that it was.

    KeyboardInterrupt, SystemExit and the like become ordinary exceptions: they must not stop the judge.
    """
    type_name, message = clean(type_name) or "Exception", clean(message)
    for name in bases:
        base = getattr(builtins, name, None)
        if isinstance(base, type) and issubclass(base, Exception):
            try:
                error = type(type_name, (RemoteError, base), {})(message)
                break
            except TypeError:  # a class that needs other arguments, or cannot be combined
                continue
    else:
        error = type(type_name, (RemoteError,), {})(message)
    error.line_in_answer = clean(line)
    return error


def write_back(original: Any, changed: Any) -> Any:
    """Does to `original` what the worker did to its copy of it; returns what belongs in its place."""
    if type(original) is not type(changed):
        return changed
    if isinstance(original, torch.Tensor):
        if original.shape == changed.shape and original.dtype == changed.dtype:
            original.copy_(changed)
            return original
        original.data = changed
        return original
    if isinstance(original, list):
        same_length = len(original) == len(changed)
        original[:] = list(map(write_back, original, changed)) if same_length else changed
        return original
    if isinstance(original, dict):
        new = {
            key: write_back(original[key], changed[key]) if key in original else changed[key]
            for key in changed
        }
        original.clear()
        original.update(new)
        return original
    if isinstance(original, set):
        original.clear()
        original.update(changed)
        return original
    if isinstance(original, tuple) and len(original) == len(changed):
        return tuple(map(write_back, original, changed))
    return changed
