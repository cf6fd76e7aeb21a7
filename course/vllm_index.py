"""Where the names of vLLM 0.22.1's attention code stand and who calls whom: facts, committed, no text.

    find("forward")                      every definition of that name in the indexed files
    where("FlashAttentionImpl.forward")  the one definition: path, line, kind, class, bases
    at("backends/flash_attn.py:592")     what stands there: the innermost definition that holds the line
    objection("flash_attn.py:592", "FlashAttentionImpl.forward")   what is wrong with an answer, or None
    callees(name), callers(name)         call edges
    broken_step(["Attention.forward", ...])   what is wrong with a call path, or None
    python -m course.vllm_index          makes data/vllm_0_22_1_index.json anew from the released source

A name is "module:qualname", as the tracer writes it, or shorter: the module may be cut on the left or left out
("flash_attn:FlashAttentionImpl.forward", "FlashAttentionImpl.forward", "get_forward_context").
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Symbol:
    """A definition. kind: "class", "function", "method" or "assignment". first, last: its lines, from 1.

    start: the first decorator's line, or `first`. bases: of a class, as written. parameters: of a function.
    """

    path: str
    qualname: str
    kind: str
    first: int
    last: int
    start: int
    bases: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def name(self) -> str:
        """ "module:qualname"."""
        return f"{self.module}:{self.qualname}"

    @property
    def place(self) -> str:
        """ "path:line"."""
        return f"{self.path}:{self.first}"


def find(name: str) -> list[Symbol]:
    """Every definition that the name fits, in the order of files and lines; none is an empty list."""
    raise NotImplementedError


def where(name: str) -> Symbol:
    """The one definition that the name fits. Raises ValueError when none or several do, and names them."""
    raise NotImplementedError


def at(place: str) -> Symbol | None:
    """The innermost definition that holds a line ("path:line"); None between the definitions of a module.

    Raises ValueError for a place that is none, or is not of an indexed file.
    """
    raise NotImplementedError


def objection(place: str, name: str) -> str | None:
    """What is wrong with `place` ("path:line") as an answer to where `name` is defined; None if it is right.

    A near miss is told what stands there: "line 592 is the class FlashAttentionImpl; ...forward starts at 667".
    The path may be cut short; a decorator's line and a range "path:first-last" count too.
    """
    raise NotImplementedError


def callees(name: str) -> list[str]:
    """What a definition calls, as "module:qualname"; a method of an object whose class the text does not say
    as ".method"."""
    raise NotImplementedError


def callers(name: str) -> list[str]:
    """The definitions that call one, as "module:qualname"."""
    raise NotImplementedError


def broken_step(path: list[str]) -> str | None:
    """What is wrong with a call path (names, each calling the next); None if every step is a call edge."""
    raise NotImplementedError
