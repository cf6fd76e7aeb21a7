"""A small lesson with three Triton exercises, for a GPU or the interpreter, and submissions of it."""

from typing import Any

import nbformat
from nbformat import NotebookNode

FULL = {"add": 2, "double": 3, "square": 4}

SETUP = """
import torch

import kernels
import triton
import triton.language as tl

BLOCK = 256
"""

KERNEL = """
@triton.jit
def _{name}_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    tl.store(out_ptr + i, {expression}, mask=i < n)


def {name}(x):
    out = torch.empty_like(x)
    _{name}_kernel[(triton.cdiv(x.numel(), BLOCK),)](x, out, x.numel(), BLOCK=BLOCK)
    return out
"""

TEST = """
x = torch.arange(1000.0, device=kernels.device())
assert torch.equal({name}(x), {truth}), "{name} is wrong"
"""

EXPRESSIONS = {"add": "x + 1", "double": "x + x", "square": "x * x"}


def right(name: str) -> str:
    return KERNEL.format(name=name, expression=EXPRESSIONS[name])


def kernel_lesson() -> NotebookNode:
    cells = [_cell("setup", SETUP, locked=True)]
    for name, points in FULL.items():
        test = TEST.format(name=name, truth=EXPRESSIONS[name])
        cells += [_cell(f"{name}-code", right(name), solution=True)]
        cells += [_cell(name, test, grade=True, locked=True, points=points)]
    return nbformat.v4.new_notebook(cells=cells)


def submission(**sources: str) -> bytes:
    """Right answers, except for the exercises named."""
    notebook = kernel_lesson()
    for cell in notebook.cells:
        cell.source = (
            sources.get(cell.id.removesuffix("-code"), cell.source) if "code" in cell.id else cell.source
        )
    return nbformat.writes(notebook).encode()


def _cell(name: str, source: str, **flags: Any) -> NotebookNode:
    meta = {
        "grade_id": name,
        "schema_version": 3,
        "grade": False,
        "solution": False,
        "locked": False,
        **flags,
    }
    return nbformat.v4.new_code_cell(source, id=name, metadata={"nbgrader": meta})
