"""vLLM 0.22.1 as its released source has it: the text for reading, whose names stand where, which backend it picks and why.

    from course.vllm import index, rules, source
    from course.vllm.show import show

    rules.explain(deployment)                   # vLLM's own reasons against each backend
    index.where("FlashAttentionImpl.forward")   # the one definition: path, lines, parameters, calls
    show("flash_attn.py", "FlashAttentionImpl.forward")   # the passage, in the notebook

source.py brings the text and holds it against the release; show.py shows a passage of it. index.py answers where a name
stands and who calls whom, with the definitions of symbols.py, out of a committed file: facts.py reads such facts off the
syntax tree, index_build.py writes the file. rules.py says which backend vLLM picks, out of a committed table: extract.py
makes it by running vLLM's own code, which stubs.py does without vLLM and without a GPU. refs.py holds the places that the
course's texts name against the release.

None of this is the package `vllm` itself, which nobody has to install. Each module is loaded when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from course.vllm import index, rules, show, source

# What a lesson uses; the others make and hold what these answer from.
__all__ = ["index", "rules", "show", "source"]


def __getattr__(name: str) -> Any:
    """Import a module of a lesson on first use."""
    if name in __all__:
        return import_module(f"course.vllm.{name}")
    raise AttributeError(f"module 'course.vllm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
