"""Question 12: what a new kind of attention brings and what it reuses, wrong and right."""

from autograder.misconceptions.latent_backend import RIGHT_VARIANTS as BACKENDS
from autograder.misconceptions.latent_backend import TRUTH
from autograder.registry import Misconception, RightVariant


def _said(**changes):
    return {"q12_reuse": {**TRUTH, **changes}}


MISCONCEPTIONS = (
    Misconception(
        "everything-anew",
        "everything is written anew. That is the fork that nobody can maintain: paging, scheduling and the layer never look into a "
        "token's row, and serve yours as they are.",
        {"q12_reuse": dict.fromkeys(TRUTH, "implement")},
    ),
    Misconception(
        "a-pool-of-latents",
        "the block pool is taken for something that knows what its blocks hold. It gives out numbers; the backend says how large a block "
        "is, by get_kv_cache_shape.",
        _said(block_pool="implement"),
    ),
    Misconception(
        "slots-of-its-own",
        "slot mapping and block table are thought to depend on the row. Both count tokens: the row's width is multiplied in when the "
        "tensor is indexed.",
        _said(slot_mapping="implement", block_table="implement"),
    ),
    Misconception(
        "no-table-needed",
        "slot mapping and block table are thought not to be needed, as the latent is small. The cache is paged all the same.",
        _said(slot_mapping="not needed", block_table="not needed"),
    ),
    Misconception(
        "prefixes-are-lost",
        "prefix sharing is taken for something about keys and values. A latent depends on the tokens up to its own, as a key does: the "
        "same prefix gives the same blocks.",
        _said(prefix_sharing="not needed"),
    ),
    Misconception(
        "the-impl-rotates",
        "the rotation by position is given to the backend. The model has done it: k_pe arrives turned, and the latent is never "
        "turned, which is why k_pe is kept apart.",
        _said(rotation="implement"),
    ),
    Misconception(
        "the-impl-projects",
        "the projections are given to the backend. In this contract the layer multiplies W_UK into the query before it calls forward_mqa and "
        "W_UV after; doing it again projects twice.",
        _said(projections="implement"),
    ),
    Misconception(
        "a-selector-of-its-own",
        "the selector is thought to need a change. A backend from outside is registered, and named by the user.",
        _said(selector="implement"),
    ),
    Misconception(
        "the-old-shape",
        "the cache's shape is taken from an ordinary backend. Yours has no heads and no second plane: the shape is what changes the "
        "bytes.",
        _said(cache_shape="reuse"),
    ),
    Misconception(
        "the-builder-is-for-others",
        "the builder is thought not to be needed. Without metadata forward_mqa knows neither blocks nor lengths.",
        _said(metadata_builder="not needed"),
    ),
    Misconception(
        "kernels-did-it",
        "attention is said to be reused, while your forward_mqa calls nothing of kernels for it.",
        _said(attention="reuse"),
    ),
    Misconception(
        "prompts-apart",
        "a kernel for prompts is said to be implemented. vLLM has one, because it multiplies less; you have one way for both, and it is "
        "right.",
        _said(prefill_kernel="implement"),
    ),
    Misconception(
        "graphs-for-free",
        "CUDA graphs are thought to be there by themselves. Your builder says NEVER, by inheritance, and its metadata is new in "
        "each step.",
        _said(cuda_graphs="reuse"),
    ),
)

_reusing = {variant.name: variant.parts for variant in BACKENDS}
RIGHT_VARIANTS = (
    RightVariant(
        "other-spelling",
        {"q12_reuse": {part: said.upper().replace(" ", "_") for part, said in TRUTH.items()}},
    ),
    RightVariant("our-builder-and-reference", _reusing["the-builder-reused"]),
    RightVariant("our-writer", {**_reusing["a-dimension-for-the-one-head"], **_said(cache_write="reuse")}),
)
