"""Question 4: what a model hands to `Attention.forward`, what it never learns, and where the metadata comes from.

The truth is read off the index of vLLM's source: what is handed over are the parameters of `Attention.forward`; what a
model knows are these and the parameters of a model's attention (Llama's) and of the layer's
constructor. A candidate whose names occur nowhere among them is unknown to the model.
"""

from __future__ import annotations

import functools
from typing import Any

from autograder.checks.plain_answers import listed, unanswered, words
from autograder.checks.vllm_names import definition
from autograder.failure import Problem
from autograder.misconceptions import q4_forward as mistakes
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite
from course.candidates import MODEL
from course.vllm import index as vllm_index

PASSED, UNKNOWN, SOURCE = PARTS = ("q4_passed", "q4_unknown", "q4_metadata_source")
LAYER = "vllm.model_executor.layers.attention.attention:Attention"
MODELS_ATTENTION = "vllm.model_executor.models.llama:LlamaAttention"
CONTEXT = "vllm.forward_context"

# What a candidate is called where a model hands it over, if that is not its own name.
_NAMES = {
    "scale": ("scale", "scaling"),
    "sliding_window": ("sliding_window", "per_layer_sliding_window"),
    "head_size": ("head_size", "head_dim"),
}
_FORWARD = "Attention.forward (layers/attention/attention.py:437)"
HINTS = (
    "For each candidate, ask when a model could have handed it over: with every call of the layer, once when the layer "
    "was built, or never. The first kind goes into q4_passed, the third into q4_unknown, the second into neither.",
    "Compare the parameters of Attention.forward (layers/attention/attention.py:437) with those of Attention.__init__ "
    "(layers/attention/attention.py:189), and read LlamaAttention (models/llama.py:124). For the metadata, read the docstring "
    "of the first, and then get_attention_context (layers/attention/attention.py:648): whom does it ask?",
    "Everything that depends on who else is being served is unknown to the model: blocks, slots, lengths, where a request "
    "begins. So is everything that depends on the backend: the cache and its layout, the kernel. The metadata lies in "
    "the forward context, vllm/forward_context.py.",
)


@functools.cache
def passed() -> frozenset[str]:
    """The candidates that every call of the layer hands over."""
    return frozenset(MODEL) & set(vllm_index.where(f"{LAYER}.forward").parameters)


@functools.cache
def known() -> frozenset[str]:
    """The candidates that a model has in hand, at one time or another."""
    places = (
        f"{LAYER}.__init__",
        f"{LAYER}.forward",
        f"{MODELS_ATTENTION}.__init__",
        f"{MODELS_ATTENTION}.forward",
    )
    names = {name for place in places for name in vllm_index.where(place).parameters}
    return frozenset(word for word in MODEL if names & set(_NAMES.get(word, (word,))))


def unknown() -> frozenset[str]:
    """The candidates that a model never sees."""
    return frozenset(MODEL) - known()


def cases(suite: Suite) -> list[Case]:
    """One for each part, in both suites: nothing about them is secret."""
    labels = ("what the model hands over", "what the model does not know", "where the metadata comes from")
    return [Case(label, {"part": part}) for label, part in zip(labels, PARTS, strict=True)]


def validate(answer: Answer) -> str | None:
    return unanswered(dict(answer))


def read(answer: Answer, case: Case) -> Output:
    """The part in question, the same for equivalent answers. Raises AnswerProblem for what is no answer."""
    part = case.inputs["part"]
    if part == SOURCE:
        return {"given": definition(part, answer[part]).name}
    return {"given": sorted(words(part, answer[part], MODEL))}


def inspect(output: Output, case: Case) -> Problem | None:
    part, given = case.inputs["part"], output["given"]
    objection: str | None
    if part == SOURCE:
        objection = _not_the_source(given)
    else:
        objection = (_not_passed if part == PASSED else _not_unknown)(frozenset(given))
    return Problem(f"{part}: {objection}") if objection else None


def _not_passed(given: frozenset[str]) -> str | None:
    if extra := given - passed():
        once, never = _kinds(extra)
        if never:
            return f"{listed(never)} {_is(never)} no argument of {_FORWARD}"
        return f"{listed(once)} {_is(once)} known to the model, but no argument of {_FORWARD}"
    if missing := passed() - given:
        return f"Attention.forward takes {len(missing)} more of the candidates with every call"
    return None


def _not_unknown(given: frozenset[str]) -> str | None:
    if handed := given & passed():
        return f"{listed(handed)}: the model makes that itself, in this very step"
    if extra := given - unknown():
        return f"{listed(extra)}: the model does know that, from its configuration or as its own argument"
    if missing := unknown() - given:
        return (
            f"{len(missing)} more of the candidates {'is' if len(missing) == 1 else 'are'} nowhere in "
            "LlamaAttention (models/llama.py:124), neither in its code nor in what it is given"
        )
    return None


def _kinds(extra: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Those that the model knows all the same, and those that it never sees."""
    return extra & known(), extra & unknown()


def _is(items: Any) -> str:
    return "is" if len(items) == 1 else "are"


def _not_the_source(given: str) -> str | None:
    module, _, qualname = given.partition(":")
    if module == CONTEXT:
        about = ("get_forward_context", "ForwardContext", "ForwardContext.attn_metadata", "_forward_context")
        setters = ("set_forward_context", "create_forward_context", "override_forward_context")
        if qualname in about + setters:
            return None
        return f"{qualname} is in the right file, but holds no metadata"
    if qualname == "get_attention_context":
        return "get_attention_context looks the metadata up for a layer, and asks somebody else for it"
    if qualname == "Attention.forward":
        return "Attention.forward gets no metadata. Its docstring says where the metadata is instead"
    if qualname.endswith((".build", "MetadataBuilder")):
        return f"{qualname} makes the metadata before the model runs; asked is where a layer finds it while the model runs"
    return f"{qualname} is not where a layer finds this step's metadata"


CHECK = Check(
    name="q4_forward",
    grade_id="q4-forward",
    parts=PARTS,
    cases=cases,
    run=read,
    inspect=inspect,
    solution=mistakes.TRUTH,
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    hints=HINTS,
    validate=validate,
    partial=True,
)
