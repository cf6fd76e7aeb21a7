"""Question 12, second part: what of an engine serves a new kind of attention as it is, held against what was really overridden.

Where a part can be seen, the answer is the learner's own classes': who defines a method, what of `kernels` it reaches.
"""

from __future__ import annotations

from typing import Any

import torch

from autograder import driven
from autograder.checks.plain_answers import entries, is_blank, refuse, unanswered
from autograder.driven import Driven
from autograder.failure import Problem
from autograder.misconceptions import q12_reuse as mistakes
from autograder.misconceptions.latent_backend import latent
from autograder.registry import Answer, Check, Output
from autograder.suite import Case, Suite
from course.reuse_parts import GROUPS, PARTS, VERDICTS
from kernels import runtime
from kernels.backends import AttentionCGSupport
from kernels.backends.conformance import Setup, Trial

PART = "q12_reuse"
IMPLEMENT, REUSE, NOT_NEEDED = VERDICTS
# Whatever the learner's classes are.
_ALWAYS = {part: {REUSE} for group in ("the engine's", "the layer's") for part in GROUPS[group]}
_WHY = {
    "block_pool": "it counts blocks and never looks into one",
    "scheduler": "it counts tokens and blocks; how wide a token's row is concerns it only through the number of blocks that fit",
    "prefix_sharing": "blocks are found by the tokens that they hold; a latent depends on the same tokens as a key does",
    "block_table": "it lists block numbers, and your builder gets it filled",
    "slot_mapping": "a slot is block * block_size + offset, whatever lies there; do_kv_cache_update gets it as an argument",
    "rotation": "the model has turned query and k_pe before the layer sees them",
    "projections": "MLAAttention does both around the backend: queries arrive absorbed, outputs leave in the latent space",
    "forward_context": "it carries any metadata by the layer's name and looks into none",
    "selector": "register_backend enters a class as CUSTOM; validate_configuration is inherited",
    "description": "nobody but the backend knows its name, that it is for latents, and its dtypes",
}
HINTS = (
    "Ask of each part: does it look into a token's row, or does it only count blocks and tokens? Whoever only counts serves you as "
    "it is.",
    "Go through your three classes: each method that you wrote is a part that you implemented. Whatever called these methods, and "
    "whatever filled their arguments, you reused.",
    "Nine of the parts, the engine's and the layer's, are reused as they are. Of the backend's you implement what you wrote. What "
    "speed adds is not needed, unless your classes have it: does your builder claim CUDA graphs, does your backend take fp8, "
    "does LatentImpl define forward_mha?",
)


def cases(suite: Suite) -> list[Case]:
    return [Case(f"{group} parts" if "'" in group else group, {"group": group}) for group in GROUPS]


def validate(answer: Answer) -> str | None:
    if said := unanswered({PART: answer[PART]}):
        return said
    for name in driven.PARTS:
        if not callable(answer[name]):
            return f"{name}: expected a class, got a {type(answer[name]).__name__}"
    return None


def run(answer: Answer, case: Case) -> Output:
    """The group's verdicts, what would be right for these classes, and why where that was seen."""
    given = entries(PART, answer[PART], "a dict from part to implement, reuse or not needed")
    for part in given:
        if part not in PARTS:
            raise refuse(f"{PART}: {part[:40]!r} is none of the parts")
    said = {}
    for part in GROUPS[case.inputs["group"]]:
        verdict = given.get(part)
        if is_blank(verdict):
            raise refuse(f'{part} has no answer; expected "implement", "reuse" or "not needed"')
        word = verdict.strip().lower().replace("_", " ") if type(verdict) is str else ""
        if word not in VERDICTS:
            raise refuse(f'{part}: expected "implement", "reuse" or "not needed"')
        said[part] = word
    seen = {} if said.keys() <= _ALWAYS.keys() else _seen(driven.driven(answer))
    right = {part: sorted(_ALWAYS.get(part) or seen[part][0]) for part in said}
    why = {part: _WHY.get(part) or seen[part][1] for part in said}
    return {"said": said, "right": right, "why": why}


def _seen(backend: type[Driven]) -> dict[str, tuple[set[str], str]]:
    """For each part that depends on the classes: what may be said of it, and what was seen."""
    places, reached = driven.places(backend), _reached(backend)

    def own(method: str) -> bool:
        return places.get(method, "").partition(".")[0] not in ("kernels", "")

    def method(name: str, *does: str) -> tuple[set[str], str]:
        """Of a method that every backend has: yours, ours, or yours on top of ours."""
        short = name.partition(".")[2]
        called = [one for one in reached if one.rpartition(":")[2].rpartition(".")[2] in does]
        if not own(name):
            return {REUSE}, f"your class inherits {short} from {places.get(name)}"
        if called:
            return {IMPLEMENT, REUSE}, f"your {short} calls {called[0]}"
        return {IMPLEMENT}, f"your class defines {short}, which calls nothing of kernels that does this work"

    merges = any(one.startswith("kernels.") and "latent_decode" in one for one in reached)
    graphs = backend.get_builder_cls().get_cudagraph_support()
    fp8 = backend.ask("supports_kv_cache_dtype", kv_cache_dtype="fp8")
    claims = own("LatentMetadataBuilder.build")
    return {
        "description": ({IMPLEMENT}, _WHY["description"]),
        "cache_shape": method("LatentBackend.get_kv_cache_shape"),
        "cache_write": method("LatentImpl.do_kv_cache_update", "reshape_and_cache", "do_kv_cache_update"),
        "metadata_builder": method("LatentMetadataBuilder.build", "build"),
        "attention": method(
            "LatentImpl.forward_mqa",
            "latent_decode",
            "paged_decode",
            "paged_attention",
            "dense_attention",
            "forward_mqa",
        ),
        "prefill_kernel": (
            ({IMPLEMENT}, "your LatentImpl defines forward_mha")
            if own("LatentImpl.forward_mha")
            else (
                {NOT_NEEDED},
                "your LatentImpl has no forward_mha: forward_mqa attends for prompts too, which costs time and nothing else",
            )
        ),
        "split_kv_merge": (
            {REUSE, NOT_NEEDED} if merges else {NOT_NEEDED},
            "latent_decode brings it along"
            if merges
            else "your forward_mqa is right without it; it would keep a GPU busy when requests are few",
        ),
        "cuda_graphs": (
            (
                {NOT_NEEDED},
                "your builder's get_cudagraph_support says NEVER: the engine then runs step by step",
            )
            if graphs == AttentionCGSupport.NEVER
            else (
                {IMPLEMENT if claims else REUSE},
                f"your builder's get_cudagraph_support says {graphs.name}",
            )
        ),
        "fp8_scales": (
            ({IMPLEMENT, REUSE}, "your backend takes a cache of fp8")
            if fp8
            else ({NOT_NEEDED}, "your backend's supported_kv_cache_dtypes does not name fp8")
        ),
    }


def _reached(backend: type[Driven]) -> list[str]:
    """What of `kernels` is reached in a prompt and a decode. A backend that fails there has shown what it reached by then.

    Raises NotImplementedError for one that is not written.
    """
    backend.drive("watch")
    try:
        trial = Trial(Setup(backend, runtime.device(), torch.float32, num_kv_heads=1, head_size=24))
        request = trial.request(6)
        trial.step([(request, 5)])
        trial.step([(request, 1)])
    except NotImplementedError:
        raise
    except Exception:  # whether it is right is question 12's first check
        pass
    return driven.reached(backend)


def inspect(output: Output, case: Case) -> Problem | None:
    for part, said in output["said"].items():
        if said not in output["right"][part]:
            return Problem(f'{part} is not "{said}": {output["why"][part]}')
    return None


def same(a: Output, b: Output, case: Case) -> bool:
    return bool(a["said"] == b["said"] and a["right"] == b["right"])


SOLUTION: dict[str, Any] = {PART: mistakes.TRUTH, **latent.solution}
CHECK = Check(
    name=PART,
    grade_id="q12-reuse",
    parts=(PART, *driven.PARTS),
    cases=cases,
    run=run,
    inspect=inspect,
    solution=SOLUTION,
    misconceptions=mistakes.MISCONCEPTIONS,
    right_variants=mistakes.RIGHT_VARIANTS,
    hints=HINTS,
    validate=validate,
    same=same,
    partial=True,
)
