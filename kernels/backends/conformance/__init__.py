"""A suite that any backend can be put through: ours, a learner's, one that is broken on purpose.

    from kernels.backends import conformance

    results = conformance.run(LatentBackend)
    print(conformance.table(results))

A check is a plain function of a `Setup` with a docstring that says what it holds; it raises ConformanceError with a
message for a person, or NotSupported when the backend says that it lacks the feature. trial.py is the small engine under
them, truth.py what is right and how near is near enough. Kernels run where `kernels.device()` says, or on `device`.
"""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from kernels.backends.backend import AttentionBackend
from kernels.backends.conformance import describing, options, reading, writing
from kernels.backends.conformance.setup import ConformanceError, NotSupported, Setup, choose_setup
from kernels.backends.conformance.trial import Trial

__all__ = [
    "CHECKS",
    "ConformanceError",
    "NotSupported",
    "Result",
    "Setup",
    "Trial",
    "choose_setup",
    "run",
    "table",
]

Check = Callable[[Setup], None]

# By name, in the order in which a backend grows: it describes itself, writes, reads, then what not all have.
CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        describing.description,
        describing.cache_shape,
        describing.builder_metadata,
        writing.write_before_read,
        writing.slot_minus_one_is_not_written,
        writing.reading_writes_nothing,
        writing.inputs_are_not_mutated,
        writing.padding_is_ignored,
        reading.prefill_of_any_length,
        reading.decode_across_blocks,
        reading.mixed_batch,
        reading.chunked_equals_one_shot,
        reading.long_sequences,
        reading.scatter_invariance,
        reading.what_nobody_owns_is_not_read,
        reading.reused_blocks,
        reading.shared_blocks,
        reading.blocks_change_after_preemption,
        reading.requests_of_length_zero,
        reading.large_scores,
        options.head_counts,
        options.head_sizes,
        options.sliding_window,
        options.softcap_and_alibi,
        options.sinks,
        options.fp8_cache,
        options.cuda_graph,
    )
}


# What a backend may lack. Any other check that it does not get through has failed.
OPTIONAL = {"sliding_window", "softcap_and_alibi", "sinks", "fp8_cache", "cuda_graph"}


@dataclass(frozen=True)
class Result:
    """name: the check's. passed: True, False, or None for a feature that the backend says it lacks.

    message: what is wrong, or why the check was left out; "" for one that passed. holds: what the check is about.
    """

    name: str
    passed: bool | None
    message: str
    holds: str


def run(
    backend_cls: type[AttentionBackend],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    checks: Sequence[str] | None = None,
) -> list[Result]:
    """Put a backend through the suite, or through the named checks.

    device: None for where kernels run on this machine. dtype: the model's; None for float32, or what the backend takes.
    Raises ValueError for what is no backend, for an unknown check, and with the backend's reasons when it does not take
    such a model on such a device.
    """
    names = list(CHECKS) if checks is None else list(checks)
    for name in names:
        if name not in CHECKS:
            raise ValueError(f"checks: expected some of {', '.join(CHECKS)}, got {name!r}")
    setup = choose_setup(backend_cls, device, dtype)
    return [_try(CHECKS[name], setup) for name in names]


def table(results: Sequence[Result]) -> str:
    """The results for a person: a line for each check, what is wrong below it, and a count."""
    width = max((len(result.name) for result in results), default=0)
    words = {True: "passed", False: "FAILED", None: "left out"}
    lines = []
    for result in results:
        line = f"{result.name:<{width}}  {words[result.passed]}"
        lines.append(f"{line}: {result.message}" if result.passed is None else line)
        if result.passed is False:
            lines += [f"    holds: {result.holds}", f"    found: {result.message}"]
    counts = [sum(result.passed is passed for result in results) for passed in words]
    lines.append(f"{counts[0]} passed, {counts[1]} failed, {counts[2]} left out")
    return "\n".join(lines)


def _try(check: Check, setup: Setup) -> Result:
    holds = " ".join((check.__doc__ or "").split())
    passed: bool | None = True
    message = ""
    try:
        check(setup)
    except NotSupported as refusal:
        passed, message = None if check.__name__ in OPTIONAL else False, str(refusal)
    except ConformanceError as error:
        passed, message = False, str(error)
    except Exception as error:  # whatever a backend under construction raises is a result, not an end
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}:{place.lineno}, in {place.name}"
        passed, message = False, f"{type(error).__name__}: {error} (raised at {where})"
    return Result(check.__name__, passed, message, holds)
