"""What the checks of questions 8 to 10 share: paged batches, the truth about them in float64, and where an output is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import kernels
from autograder import watched
from autograder.compare import error_budget, same_tensors, tensor_problem, value_problem
from autograder.failure import Problem
from autograder.guard import unchanged
from autograder.misconceptions.in_torch import is_stand_in
from autograder.registry import Output
from autograder.suite import Case, Suite
from kernels import reference

DECODE = ("query", "key_cache", "value_cache", "block_table", "seq_lens", "scale")
CAUSAL = ("query", "key_cache", "value_cache", "block_table", "seq_lens", "query_start_loc", "scale")
BLOCK_SIZE = 16
NO_KERNEL = "no Triton kernel ran"
_OUTPUT = "the output"
_FOR_SHOW = "your Triton kernel ran, but it did not compute the output"
_NO_KERNEL = "Something else computed the output: the exercise is the kernel."


class Draw:
    """Draws batches for one suite. Blocks lie in no order, block 0 among them; NaN where no token is."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite

    def decode(self, label: str, seq_lens: Sequence[int], **options: Any) -> Case:
        """A batch of one query token a request, also where the request has no token."""
        return self.batch(label, [(length - 1, 1) for length in seq_lens], decode=True, **options)

    def batch(
        self,
        label: str,
        requests: Sequence[tuple[int, int]],
        *,
        heads: tuple[int, int] = (2, 1),
        head_size: int = 64,
        block_size: int = BLOCK_SIZE,
        dtype: torch.dtype = torch.float32,
        scale: float | None = None,
        queries: float = 1.0,
        keys: float = 1.0,
        query_mean: float = 0.0,
        key_mean: float = 0.0,
        values: tuple[float, float] = (0.0, 1.0),
        shared: int = 0,
        tails: float = torch.nan,
        decode: bool = False,
        **more: Any,
    ) -> Case:
        """A case with one (num_computed_tokens, num_new_tokens) for each request.

        heads: query heads and kv heads. queries, keys: their standard deviation, around a mean; values: both.
        shared: so many first blocks are common to all requests. tails: what the slots after a request's last token hold.
        more: goes into the case's inputs.
        """
        generator = self.suite.generator(label)
        num_heads, num_kv_heads = heads
        lengths = [computed + new for computed, new in requests]
        needed = [-(-length // block_size) for length in lengths]
        # One block more than the batch needs, which nobody owns: what the table's padding points at.
        num_blocks = sum(needed) - shared * (sum(n > 0 for n in needed) - 1 if shared else 0) + 1
        free = torch.randperm(num_blocks, generator=generator).tolist()
        poison = free.pop()
        prefix = [free.pop() for _ in range(shared)]
        table = torch.full((len(requests), max([*needed, 0]) + 1), poison, dtype=torch.int32)
        shape = (num_blocks, block_size, num_kv_heads, head_size)
        caches = [torch.full(shape, torch.nan, dtype=dtype) for _ in range(2)]
        for request, (length, count) in enumerate(zip(lengths, needed, strict=True)):
            blocks = (prefix + [free.pop() for _ in range(count - shared)]) if count else []
            table[request, :count] = torch.tensor(blocks, dtype=torch.int32)
            for cache, (mean, spread) in zip(caches, ((key_mean, keys), values), strict=True):
                for logical, block in enumerate(blocks):
                    held = min(block_size, length - logical * block_size)
                    drawn = torch.randn(held, num_kv_heads, head_size, generator=generator)
                    cache[block] = tails
                    cache[block, :held] = (mean + spread * drawn).to(dtype)
        tokens = [new for _, new in requests]
        drawn = torch.randn(sum(tokens), num_heads, head_size, generator=generator)
        query = (query_mean + queries * drawn).to(dtype)
        device = kernels.device()
        inputs = {
            "query": query,
            "key_cache": caches[0],
            "value_cache": caches[1],
            "block_table": table,
            "seq_lens": torch.tensor(lengths, dtype=torch.int32),
            "query_start_loc": torch.tensor([0, *torch.tensor(tokens).cumsum(0)], dtype=torch.int32),
        }
        placed: dict[str, Any] = {name: value.to(device) for name, value in inputs.items()}
        placed["scale"] = head_size**-0.5 if scale is None else scale
        return Case(label, {**placed, "decode": decode, "shared": shared, **more})

    def integer(self, label: str, low: int, high: int) -> int:
        """A number that the suite's seed decides, low and high included."""
        return int(torch.randint(low, high + 1, (), generator=self.suite.generator(f"{label}: size")))


def copied(case: Case, names: Sequence[str]) -> dict[str, Any]:
    """Arguments to hand to an answer. The truth is taken from the case's own, which no answer ever holds."""
    values = {name: case.inputs[name] for name in names}
    return {n: v.clone() if isinstance(v, torch.Tensor) else v for n, v in values.items()}


def truth(case: Case, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """The right output, computed on the CPU in `dtype`."""
    inputs = {name: v.cpu() if isinstance(v, torch.Tensor) else v for name, v in case.inputs.items()}
    inputs |= {name: inputs[name].to(dtype) for name in ("query", "key_cache", "value_cache")}
    attend: Any = reference.paged_decode if inputs["decode"] else reference.paged_attention
    output = attend(*(inputs[name] for name in (DECODE if inputs["decode"] else CAUSAL)))
    assert isinstance(output, torch.Tensor)
    return output


def output_problem(output: object, case: Case) -> Problem | None:
    """What is wrong with an answer's output, or None."""
    problem = _kind_problem(output, case)
    if problem:
        return problem
    expected = truth(case)
    budget = error_budget(expected, [truth(case, case.inputs["query"].dtype)], case.inputs["query"].dtype)
    return held_against(output, case, expected, budget)


def held_against(output: object, case: Case, expected: torch.Tensor, budget: float) -> Problem | None:
    """What is wrong with an output of which the truth is known, or None."""
    problem = _kind_problem(output, case)
    if problem:
        return problem
    assert isinstance(output, torch.Tensor)
    return value_problem(_OUTPUT, output, expected, budget, lambda index: _place(index, case))


def _kind_problem(output: object, case: Case) -> Problem | None:
    query = case.inputs["query"]
    return tensor_problem(_OUTPUT, output, tuple(query.shape), (query.dtype,), query.device)


def call(function: Any, case: Case, names: Sequence[str], *, triton: bool) -> Output:
    """An answer's output on a case, and what was seen that speaks against it: a headline and a detail, or two empty texts."""
    arguments = copied(case, names)
    spread = bool(case.inputs.get("spread"))
    if not triton and not spread and not case.inputs.get("long"):
        with unchanged(**arguments):  # nothing is to be seen here
            return {"output": function(*arguments.values()), "evidence": "", "detail": "", "reads": ""}
    if triton and is_stand_in(function):
        with unchanged(**arguments):
            output = function(*arguments.values())
        return {"output": output, "evidence": NO_KERNEL, "detail": _NO_KERNEL, "reads": "", "stand_in": True}
    try:
        output, seen = watched.call(function, arguments, spread=spread)
    except watched.OutsideMemory as error:
        return {"output": None, "evidence": error.headline, "detail": error.detail, "reads": ""}
    headline, detail = _evidence(seen, case, triton)
    reads = f"Seen on the way: {seen.trespasses[0]}." if seen.trespasses else ""
    return {"output": output, "evidence": headline, "detail": detail, "reads": reads}


def _evidence(seen: watched.Observation, case: Case, triton: bool) -> tuple[str, str]:
    keys = case.inputs["key_cache"]
    asked = case.inputs["query_start_loc"].diff() > 0  # of the others nothing has to be read
    slots = int(case.inputs["seq_lens"][asked].sum()) * keys[0, 0].numel() * keys.element_size()
    if triton and not seen.launches:
        if seen.borrowed:
            return "a kernel of the course ran and none of yours", f"It was {seen.borrowed[0]}."
        return NO_KERNEL, _NO_KERNEL
    if triton and seen.recorded and not case.inputs.get("shared"):
        for name, read in seen.distinct.items():
            if read < slots:
                return _FOR_SHOW, f"It read {read} of the {slots} bytes of {name} that the requests own."
    if triton and seen.computed_elsewhere:
        return _FOR_SHOW, "When your kernels do nothing, the output is the same."
    if case.inputs.get("in_parallel") and seen.readers == 1:
        return "one program reads the whole sequence", (
            f"num_splits is {case.inputs['num_splits']}, and 1 program loads from key_cache."
        )
    if case.inputs.get("long") and seen.copied >= slots:
        how = seen.copies[0] if seen.copies else f"A tensor of {seen.copied} bytes was made."
        return "the whole sequence is copied before attention starts", how
    return "", ""


def inspect(output: Output, case: Case) -> Problem | None:
    """What is wrong with what `call` gave, or None. Wrong numbers come first: they say more."""
    if output["output"] is not None:
        problem = output_problem(output["output"], case)
        if problem:
            said = [text.rstrip(".") for text in (problem.detail, output["reads"]) if text]
            return Problem(problem.headline, ". ".join(said))
    return Problem(output["evidence"], output["detail"]) if output["evidence"] else None


def same(a: Output, b: Output, case: Case) -> bool:
    """Whether two answers are wrong in the same way: the same wrong numbers, or the same evidence beside right ones."""
    x, y = a["output"], b["output"]
    if x is None or y is None:
        return x is y and a["evidence"] == b["evidence"]
    if not isinstance(x, torch.Tensor) or not same_tensors(x, y):
        return False
    if a["evidence"] == b["evidence"] or output_problem(x, case) is not None:
        return True
    # Right here, like the kernel whose mistake is made in torch.
    return any(
        one.get("stand_in") and not other["evidence"] and not other.get("stand_in")
        for one, other in ((a, b), (b, a))
    )


def _place(index: tuple[int, ...], case: Case) -> str:
    token, head, element = index
    starts, lengths = case.inputs["query_start_loc"].tolist(), case.inputs["seq_lens"].tolist()
    request = next(r for r in range(len(lengths)) if starts[r] <= token < starts[r + 1])
    position = lengths[request] - (starts[request + 1] - token)
    block_size = case.inputs["key_cache"].shape[1]
    where = f"request {request} (seq_len {lengths[request]}), head {head}, element {element}"
    if case.inputs["decode"]:
        return where
    return f"{where}, query token {token - starts[request]} at position {position} (block {position // block_size})"
