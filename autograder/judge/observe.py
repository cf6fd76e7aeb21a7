"""One call of an answer, watched: which Triton kernels ran, what they read, what was copied first.

It runs where the answer is: beside the learner in the notebook's own process, and in grading in the worker. What it says
there is said by the learner's process, so it tells somebody honest what to mend; whoever forges it shows up in `scan`.
In Triton's interpreter every access is recorded (`course.record`). On a GPU launches and what torch allocates are seen;
where bytes are asked for, a second run is recorded. Everywhere a run whose kernels do nothing tells whether they compute the output.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import torch

from autograder.judge import launches

MAX_TEXT = 400
# Puts a question to the judge while it waits for this process, and returns its answer; set by the worker.
ask: Callable[[Any], Any] | None = None
CACHES = ("key_cache", "value_cache")
# Elements between two blocks of a cache that is spread out: the third block begins beyond 2**31.
SPREAD = 2**30 + 2**10


def observed(
    function: Callable[..., Any], arguments: dict[str, Any], *, spread: bool = False, count: bool = False
) -> tuple[Any, dict[str, Any]]:
    """What `function(*arguments.values())` returns, and what was seen: plain data, the fields of `watched.Observation`.

    arguments: by name, tensors and numbers, in the order of the function's parameters; `key_cache`, `value_cache`,
    `block_table` and `seq_lens` among them. spread: hand over caches whose blocks lie 2**30 elements apart.
    count: on a GPU too, record what the function's own kernels load; caches are copied to the host for that, so small ones.
    Raises what the function raises.
    """
    import kernels

    given = dict(arguments)
    if spread:
        given |= {name: _spread_out(arguments[name]) for name in CACHES}
    with launches.watched(given["key_cache"]) as launched:
        result, seen = (_recorded if kernels.INTERPRET else _measured)(function, given)
    own = launched.own()
    seen["computed_elsewhere"] = (
        bool(own) and not spread and launches.make_no_difference(function, given, result, launched)
    )
    if not seen["recorded"]:
        seen["readers"] = launched.programs_on_keys
    if spread:
        for name in CACHES:  # what was written into them must show
            arguments[name].copy_(given[name])
            given[name] = arguments[name]
        if arguments[name].device.type == "cuda":
            torch.cuda.empty_cache()  # workers beside this one need as much
    if count and own and not kernels.INTERPRET:
        # The output stays that of the GPU, where the kernel has to be right; a second run tells what it loads.
        _, recorded = _recorded(function, given)
        seen |= {name: recorded[name] for name in ("recorded", "loaded", "distinct", "readers", "trespasses")}
    return result, {**seen, "launches": dict(own.most_common(20)), "borrowed": launched.borrowed()[:5]}


def with_function(function: Callable[..., Any], source: str, name: str) -> Any:
    """What `function` returns for the function called `name` that `source` defines."""
    namespace: dict[str, Any] = {"__name__": "given"}
    exec(compile(source, "<given>", "exec"), namespace)
    return function(namespace[name])


def with_backend(function: Callable[..., Any], plain_case: dict[str, Any] | None) -> dict[str, Any]:
    """Calls `function(backend)`, or `function(backend, case)`, with a backend that the judge computes.

    Returns {"value": what it returned, a case as plain data, "changed": whether the case came back changed}.
    """
    from course.differential.case import Case

    def backend(case: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
        if type(case) is not Case:
            raise TypeError(f"a backend takes a Case, got a {type(case).__name__}")
        assert ask is not None
        answer = ask(case.to_plain())
        if type(answer) is str:
            raise RuntimeError(answer)
        return [(output, lse) for output, lse in answer]

    if plain_case is None:
        return {"value": function(backend), "changed": False}
    case = Case.from_plain(plain_case)
    value = function(backend, case)
    changed = case.to_plain() != plain_case
    return {"value": value.to_plain() if type(value) is Case else value, "changed": changed}


def driver(backend: Any, impl: Any, builder: Any) -> Any:
    """What drives a backend's three classes by plain data: `drive.Driver`."""
    from autograder.judge.drive import Driver

    return Driver(backend, impl, builder)


def raced(
    function: Callable[..., Any],
    rival: Callable[..., Any],
    arguments: dict[str, Any],
    more: list[Any],
    queries: torch.Tensor,
) -> dict[str, Any]:
    """Times `function(*arguments, *more)` against `rival(*arguments)` on this GPU, in two turns of one run.

    queries: one for each timed run of a function, put into `arguments["query"]` in front of it, so that no answer is known
    from a run before. Returns {"us": [...], "rival_us": [...], "outputs": the function's output of each timed run}.
    """
    from course import gpu_timing

    given, query = list(arguments.values()), arguments["query"]
    original = query.clone()
    half = len(queries) // 2
    us: list[float] = []
    rival_us: list[float] = []
    outputs: list[Any] = []
    for first in (0, half):

        def renew(run: int, first: int = first) -> None:
            query.copy_(queries[first + run])

        times, results = gpu_timing.times_us(lambda: function(*given, *more), runs=half, before=renew)
        us += times
        outputs += results
        query.copy_(original)
        rival_us += gpu_timing.times_us(lambda: rival(*given), runs=half, before=renew)[0]
        query.copy_(original)
    return {"us": us, "rival_us": rival_us, "outputs": outputs}


def _recorded(function: Callable[..., Any], given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from course.recording import record

    tensors = {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}
    block: Any = record(**tensors)  # type: ignore[call-overload]
    with block as recording:
        result = function(*given.values())
    seen: dict[str, Any] = {"recorded": True, "loaded": {}, "distinct": {}}
    for name in CACHES:
        if name in recording.names:
            seen["loaded"][name] = recording.bytes_loaded(name)
            seen["distinct"][name] = recording.distinct_bytes_loaded(name)
    seen["readers"] = 0
    if "key_cache" in recording.names:
        programs = recording.slots("key_cache")[["launch", "x", "y", "z"]]
        seen["readers"] = len(set(programs.tolist()))

    trespasses = recording.trespasses(given["block_table"], given["seq_lens"], given.get("query_start_loc"))
    seen["trespasses"] = [str(one)[:MAX_TEXT] for one in trespasses[:1]]
    seen["copied"] = _copied(recording.torch_ops)
    seen["copies"] = [sign[:MAX_TEXT] for sign in recording.gathers(max(1, seen["copied"]))[:1]]
    return result, seen


def _copied(ops: list[Any]) -> int:
    """Bytes of the largest tensor that torch made, or wrote while it read a cache."""
    return max((op.bytes if set(op.reads) & set(CACHES) else op.allocated for op in ops), default=0)


def _measured(function: Callable[..., Any], given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Kernels that are compiled keep their accesses to themselves; what torch does is seen there too."""
    from course.recording.torch_ops import WatchTorch

    with WatchTorch(_Caches(given), lambda: 0) as watch:  # type: ignore[arg-type]
        result = function(*given.values())
    seen = {"recorded": False, "loaded": {}, "distinct": {}, "trespasses": []}
    return result, {**seen, "copied": _copied(watch.ops), "copies": []}


class _Caches:
    """Which cache a tensor's memory is part of, for `WatchTorch`."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._names = {given[name].untyped_storage().data_ptr(): name for name in CACHES}

    def names_of(self, tensor: torch.Tensor) -> list[str]:
        name = self._names.get(tensor.untyped_storage().data_ptr())
        return [name] if name else []


def _spread_out(cache: torch.Tensor) -> torch.Tensor:
    """The same cache in memory of which hardly any is ever touched, SPREAD elements from block to block."""
    size = (len(cache) - 1) * SPREAD + cache[0].numel()
    if cache.device.type == "cpu":
        # Shared and empty: such memory counts when it is touched, not when it is asked for.
        flat = torch.frombuffer(mmap.mmap(-1, size * cache.element_size()), dtype=cache.dtype)
    elif torch.cuda.mem_get_info()[0] < 4 * size * cache.element_size():
        return cache.clone()  # a small GPU: this case tells nothing there
    else:
        flat = torch.empty(size, dtype=cache.dtype, device=cache.device)
    spread = flat.as_strided(cache.shape, (SPREAD, *cache.stride()[1:]))
    spread.copy_(cache)
    return spread
