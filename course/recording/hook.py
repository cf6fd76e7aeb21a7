"""The one place that knows Triton's interpreter: it puts a recorder between the interpreter and memory.

The interface is private, known here as it is in Triton 3.6 and 3.7:
- `GridExecutor.__call__` runs a launch; it takes arguments to the host with `_init_args_hst` and hands a kernel
  `argument.data_ptr()` as an address;
- every access goes through four methods of `InterpreterBuilder` (block pointers and tensor descriptors too), which are
  the only ones that call the C++ functions that touch memory.
Where kernels are compiled, compiled.py sends them to the interpreter meanwhile: it relies on more.
`differences` says what has changed in another version; a recording refuses to start then, and a test fails.
Only attributes of these classes are replaced, and always put back.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from course.recording.access import Launch
from course.recording.collect import Recorder, TooManyAccesses
from course.recording.memory import OutOfBounds

if TYPE_CHECKING:
    import torch

    from course.recording.torch_ops import WatchTorch

# The parameters of each method that is replaced, or that compiled.py calls.
_METHODS = {
    "InterpreterBuilder.create_masked_load": (
        ["self", "ptrs", "mask", "other", "cache_modifier", "eviction_policy", "is_volatile"]
    ),
    "InterpreterBuilder.create_masked_store": (
        ["self", "ptrs", "value", "mask", "cache_modifier", "eviction_policy"]
    ),
    "InterpreterBuilder.create_atomic_cas": ["self", "ptr", "cmp", "val", "sem", "scope"],
    "InterpreterBuilder.create_atomic_rmw": ["self", "rmwOp", "ptr", "val", "mask", "sem", "scope"],
    "GridExecutor._init_args_hst": ["self", "args_dev", "kwargs"],
    "GridExecutor.__call__": ["self", "args_dev", "kwargs"],
    "InterpretedFunction.__init__": ["self", "fn", "kwargs"],
    "InterpretedFunction.run": ["self", "args", "grid", "warmup", "kwargs"],
    "InterpretedFunction.__call__": ["self", "args", "kwargs"],
    "_patch_lang": ["fn"],
    "_LangPatchScope.set_attr": ["self", "obj", "name", "value"],
    "_LangPatchScope.restore": ["self"],
}
_COMPILED = {
    "JITFunction.run": ["self", "args", "grid", "warmup", "kwargs"],
    "JITFunction.__call__": ["self", "args", "kwargs"],
    "JITFunction.is_gluon": ["self"],
}
# Which method calls which function of C++.
_MEMORY = {
    ("create_masked_load", "load"),
    ("create_masked_store", "store"),
    ("create_atomic_cas", "atomic_cas"),
    ("create_atomic_rmw", "atomic_rmw"),
}
# Set on the replacement of `GridExecutor.__call__` while a recording runs.
_MARK = "_course_record"
_OURS = str(Path(__file__).parent)


@functools.cache
def differences() -> tuple[str, ...]:
    """How the installed Triton's interpreter differs from what this file relies on; empty if it does not."""
    from triton.runtime import interpreter, jit

    in_interpreter = differences_in(interpreter, ast.parse(inspect.getsource(interpreter)))
    return (*in_interpreter, *_methods_that_differ(jit, _COMPILED))


def _methods_that_differ(module: Any, methods: dict[str, list[str]]) -> Iterator[str]:
    for name, expected in methods.items():
        function = module
        for part in name.split("."):
            function = getattr(function, part, None)
        if function is None:
            yield f"{name} is gone"
        elif (parameters := list(inspect.signature(function).parameters)) != expected:
            yield f"{name} takes ({', '.join(parameters)}), not ({', '.join(expected)})"


def differences_in(interpreter: Any, tree: ast.Module) -> tuple[str, ...]:
    """As `differences`, for any module and its syntax tree."""
    found = list(_methods_that_differ(interpreter, _METHODS))
    calls = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "_interpreter":
                    calls.add((function.name, node.attr))
    for method, way in sorted(calls - _MEMORY):
        found.append(f"{method} touches memory through _interpreter.{way}")
    for method, way in sorted(_MEMORY - calls):
        found.append(f"{method} no longer calls _interpreter.{way}")
    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for name in ("data_ptr", "grid_idx", "grid_dim", "get_element_ty", "pre_run_hooks"):
        if name not in called:
            found.append(f"the interpreter no longer uses {name}")
    return tuple(found)


def make_recorder(memory: Any, max_accesses: int) -> Recorder:
    """A recorder that knows which frames are Triton's. Raises RuntimeError for an interpreter that is unknown here."""
    import triton
    from triton.runtime import interpreter

    if differences():
        raise RuntimeError(
            f"course.record does not know the interpreter of Triton {triton.__version__}: {'; '.join(differences())}"
        )
    if hasattr(interpreter.GridExecutor.__call__, _MARK):
        raise RuntimeError("course.record: a recording is running already; leave its with-block first")
    triton_folder = str(Path(triton.__file__).parent)
    return Recorder(memory, (triton_folder, _OURS), interpreter.GridExecutor.__call__.__code__, max_accesses)


@contextmanager
def hooked(recorder: Recorder, watch: WatchTorch) -> Iterator[None]:
    """Within the block, launches and accesses of the interpreter go through `recorder`."""
    from triton.runtime import interpreter

    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    originals = [
        (owner, name, vars(owner)[name])
        for owner, names in (
            (builder, [name for name, _ in _MEMORY]),
            (executor, ["_init_args_hst", "__call__"]),
        )
        for name in names
    ]
    replacements = _accesses(recorder, interpreter) | _launches(recorder, watch, interpreter)
    try:
        for owner, name, _ in originals:
            setattr(owner, name, replacements[name])
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def _accesses(recorder: Recorder, interpreter: Any) -> dict[str, Callable]:
    """The four methods that touch memory: each has its addresses checked and translated first."""
    builder = interpreter.InterpreterBuilder
    load, store = builder.create_masked_load, builder.create_masked_store
    cas, rmw = builder.create_atomic_cas, builder.create_atomic_rmw

    def checked(self: Any, kind: str, ptrs: Any, mask: Any, itemsize: int) -> Any:
        if mask is None:
            active = np.ones(ptrs.data.shape, dtype=bool)
        else:
            active = mask if isinstance(mask, np.ndarray) else mask.data
        real = recorder.access(kind, ptrs.data, active, itemsize, self.grid_idx)
        return interpreter.TensorHandle(real, ptrs.dtype)

    def create_masked_load(self: Any, ptrs: Any, mask: Any, *rest: Any, **options: Any) -> Any:
        itemsize = interpreter._get_np_dtype(ptrs.get_element_ty()).itemsize
        return load(self, checked(self, "load", ptrs, mask, itemsize), mask, *rest, **options)

    def create_masked_store(self: Any, ptrs: Any, value: Any, mask: Any, *rest: Any, **options: Any) -> Any:
        # What is written is as wide as the value, whatever the pointer says.
        real = checked(self, "store", ptrs, mask, value.data.itemsize)
        return store(self, real, value, mask, *rest, **options)

    def create_atomic_cas(self: Any, ptr: Any, cmp: Any, val: Any, *rest: Any) -> Any:
        return cas(self, checked(self, "atomic", ptr, None, val.data.itemsize), cmp, val, *rest)

    def create_atomic_rmw(self: Any, rmwOp: Any, ptr: Any, val: Any, mask: Any, *rest: Any) -> Any:
        return rmw(self, rmwOp, checked(self, "atomic", ptr, mask, val.data.itemsize), val, mask, *rest)

    return {
        "create_masked_load": create_masked_load,
        "create_masked_store": create_masked_store,
        "create_atomic_cas": create_atomic_cas,
        "create_atomic_rmw": create_atomic_rmw,
    }


def _launches(recorder: Recorder, watch: WatchTorch, interpreter: Any) -> dict[str, Callable]:
    """The two methods of a launch: it is written down, and its arguments get addresses of their own."""
    executor = interpreter.GridExecutor
    call, to_host = executor.__call__, executor._init_args_hst

    def _init_args_hst(self: Any, args_dev: Any, kwargs: Any) -> Any:
        args_host, kwargs_host = to_host(self, args_dev, kwargs)
        arguments = recorder.launches[-1].arguments
        pairs = [
            *zip(self.arg_names, args_dev, args_host, strict=False),
            *((name, value, kwargs_host[name]) for name, value in kwargs.items()),
        ]
        for parameter, device, host in pairs:
            for name, device_tensor, host_tensor in _tensors(parameter, device, host):
                if device_tensor.is_cuda and str(device_tensor.dtype) == "torch.bfloat16":
                    raise ValueError(
                        f"{name}: expected float16 or float32 while recording, got bfloat16, which Triton's interpreter "
                        "computes wrongly"
                    )
                tensor, address = recorder.memory.argument(
                    name.removesuffix("_ptr"), recorder.launches[-1].kernel, device_tensor, host_tensor
                )
                arguments[name] = recorder.memory.tensors[tensor].name
                # `host_tensor` was made for this launch alone; the interpreter asks it where it is.
                host_tensor.data_ptr = functools.partial(int, address)  # type: ignore[method-assign]
        return args_host, kwargs_host

    def __call__(self: Any, *args_dev: Any, **kwargs: Any) -> Any:
        builder = interpreter.interpreter_builder
        recorder.launches.append(Launch(self.fn.__name__, None, {}))
        number = len(recorder.launches) - 1
        builder.grid_dim = None
        watch.paused = True
        try:
            return call(self, *args_dev, **kwargs)
        except Exception as error:
            # Triton wraps what happens in a kernel, once for each helper on the way.
            ours = _ours_in(error)
            if ours is None:
                raise
            raise ours.with_traceback(None) from None
        finally:
            watch.paused = False
            recorder.memory.end_launch()
            launch = recorder.launches[number]
            recorder.launches[number] = Launch(launch.kernel, builder.grid_dim, launch.arguments)

    setattr(__call__, _MARK, True)
    return {"_init_args_hst": _init_args_hst, "__call__": __call__}


def _tensors(name: str, device: Any, host: Any) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """The tensors in one argument: itself, a descriptor's, a reinterpreted one's, or those of a tuple."""
    if isinstance(device, tuple):
        for index, (one, other) in enumerate(zip(device, host, strict=True)):
            yield from _tensors(f"{name}[{index}]", one, other)
    elif hasattr(device, "untyped_storage"):
        yield name, device, host
    elif hasattr(device, "base"):
        yield from _tensors(name, device.base, host.base)


def _ours_in(error: BaseException | None) -> OutOfBounds | TooManyAccesses | None:
    while error is not None and not isinstance(error, OutOfBounds | TooManyAccesses):
        error = error.__cause__
    return error
