"""Question 4: what people take a model to know, wrong and right. Solutions are typed as a learner would type them."""

from autograder.registry import Misconception, RightVariant

_PASSED = {"query", "key", "value"}
_UNKNOWN = {
    "kv_cache",
    "cache_layout",
    "block_table",
    "slot_mapping",
    "seq_lens",
    "query_start_loc",
    "kernel",
}
_SOURCE = "vllm.forward_context:get_forward_context"
TRUTH = {"q4_passed": _PASSED, "q4_unknown": _UNKNOWN, "q4_metadata_source": _SOURCE}

MISCONCEPTIONS = (
    Misconception(
        "metadata-as-arguments",
        "the metadata is taken to be handed over with the call. A kernel needs it, the layer does not: if every model had "
        "to pass block tables along, every model would have to know about paging.",
        {"q4_passed": _PASSED | {"block_table", "slot_mapping", "seq_lens", "query_start_loc"}},
    ),
    Misconception(
        "read-and-write-addresses-as-arguments",
        "block table and slot mapping are taken to be handed over with the call. They come by another way, which the "
        "third answer names.",
        {"q4_passed": _PASSED | {"block_table", "slot_mapping"}},
    ),
    Misconception(
        "cache-as-argument",
        "the cache is taken to be handed over with the call. The layer has it as an attribute, self.kv_cache, bound to "
        "it from outside; older texts show it as an argument.",
        {"q4_passed": _PASSED | {"kv_cache"}},
    ),
    Misconception(
        "constructor-arguments-as-call-arguments",
        "what the layer's constructor gets is taken for what every call gets: head counts, head size and scale are said "
        "once, when the model is built.",
        {"q4_passed": _PASSED | {"num_heads", "num_kv_heads", "head_size", "scale"}},
    ),
    Misconception(
        "query-only",
        "only the query is handed over, as if keys and values were all in the cache. This step's are not yet: somebody "
        "has to bring them.",
        {"q4_passed": {"query"}},
    ),
    Misconception(
        "positions-as-argument",
        "the positions are taken to go to the attention layer. The model rotates query and key by them before the call, in "
        "rotary_emb (models/llama.py:230), and the layer never sees them.",
        {"q4_passed": _PASSED | {"positions"}},
    ),
    Misconception(
        "knows-its-cache",
        "the model is taken to know the cache: that it allocates it, or at least how it is laid out. The backend says "
        "which shape it wants, and the runner allocates it.",
        {"q4_unknown": _UNKNOWN - {"kv_cache", "cache_layout"}},
    ),
    Misconception(
        "knows-the-batch",
        "the model is taken to know where each request begins and how long it is. It sees one row of tokens, those of all "
        "requests behind one another; where one ends is nothing that its layers ask.",
        {"q4_unknown": _UNKNOWN - {"seq_lens", "query_start_loc"}},
    ),
    Misconception(
        "only-the-kernel-is-unknown",
        "only the kernel and its cache layout are counted as unknown, as if the model managed blocks and lengths itself.",
        {"q4_unknown": {"kernel", "cache_layout"}},
    ),
    Misconception(
        "not-an-argument-so-unknown",
        "whatever is no argument of forward is taken for unknown. The model knows its heads, its scale and its window: it "
        "tells the layer once, when it builds it.",
        {"q4_unknown": _UNKNOWN | {"num_heads", "num_kv_heads", "head_size", "scale", "sliding_window"}},
    ),
    Misconception(
        "the-reader-as-source",
        "the function that looks the metadata up is taken for the place where it lies.",
        {"q4_metadata_source": "vllm.model_executor.layers.attention.attention:get_attention_context"},
    ),
    Misconception(
        "the-maker-as-source",
        "the builder is taken for the place where a layer finds its metadata. It has finished its work by then: it runs "
        "once a step, for all layers of its group, before the first of them.",
        {"q4_metadata_source": "vllm.v1.attention.backend:AttentionMetadataBuilder.build"},
    ),
    Misconception(
        "our-context-for-vllms",
        "our own forward context is named. It is the right role; asked is vLLM's.",
        {"q4_metadata_source": "kernels.backends.forward_context:get_forward_context"},
    ),
)

RIGHT_VARIANTS = (
    RightVariant(
        "lists-and-a-path",
        {
            "q4_passed": ["value", "key", "query"],
            "q4_unknown": sorted(_UNKNOWN),
            "q4_metadata_source": "vllm/forward_context.py:get_forward_context",
        },
    ),
    RightVariant("the-class", {"q4_metadata_source": "vllm.forward_context:ForwardContext"}),
    RightVariant("the-field", {"q4_metadata_source": "vllm.forward_context.ForwardContext.attn_metadata"}),
    RightVariant("module-cut-short", {"q4_metadata_source": "forward_context:get_forward_context()"}),
    RightVariant("no-module", {"q4_metadata_source": "get_forward_context"}),
    RightVariant("its-line", {"q4_metadata_source": "vllm/forward_context.py:191"}),
    RightVariant("a-decorators-line", {"q4_metadata_source": "forward_context.py:249"}),
    RightVariant(
        "other-spelling", {"q4_unknown": {word.replace("_", " ").title() for word in _UNKNOWN} | {" kernel "}}
    ),
)
