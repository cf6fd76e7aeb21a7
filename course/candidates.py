"""What lesson 2's answers are chosen from. The lesson shows these lists and the checks read them.

candidates.model()             question 4: what a model may know about attention
candidates.methods()           question 5: methods and functions, each somebody's job
candidates.inputs()            question 7: what a selector might look at
candidates.configurations()    question 7: ten ways to start vLLM
candidates.STATIONS            self-grading: functions to draw the way to the kernel with
deployment_of(configuration)   one of the ten as `course.vllm.rules.Deployment`
"""

from collections.abc import Mapping
from typing import Any

from course.deployments import Table
from course.vllm.rules import Deployment

# Question 4. The word, and what is meant.
MODEL = {
    "block_table": "which blocks a request has",
    "cache_layout": "the order of the cache's dimensions",
    "head_size": "how long one head is",
    "kernel": "which function computes attention",
    "key": "this step's keys",
    "kv_cache": "the tensor that holds the keys and values of all requests",
    "num_heads": "how many query heads the layer has",
    "num_kv_heads": "how many key/value heads it has",
    "positions": "where in its sequence each of this step's tokens stands",
    "query": "this step's queries",
    "query_start_loc": "where each request's queries begin",
    "scale": "the factor on the scores",
    "seq_lens": "how many tokens each request has",
    "sliding_window": "how far back this layer may look",
    "slot_mapping": "where this step's keys and values go",
    "value": "this step's values",
}

# Question 5. Each is the job of one of the three base classes, or of none of them.
METHODS = {
    "build": "makes one step's metadata for the kernels",
    "build_for_cudagraph_capture": "the same, while a CUDA graph is captured",
    "do_kv_cache_update": "writes this step's keys and values into the cache",
    "forward": "computes attention over the cache",
    "get_attn_backend": "picks the backend of a layer",
    "get_builder_cls": "names the class that makes the metadata",
    "get_cudagraph_support": "says for which batches a CUDA graph can be captured",
    "get_impl_cls": "names the class that computes",
    "get_kv_cache_shape": "says which shape the cache must have",
    "get_name": "gives the name that users and logs know",
    "process_weights_after_loading": "prepares scales and weights once they are loaded",
    "set_forward_context": "puts one step's metadata where the layers find it",
    "supports_head_size": "says whether there is a kernel for this head size",
    "unified_attention_with_output": "the operator that a layer calls, opaque to torch.compile",
    "update_block_table": "takes finished metadata over for another block table",
    "validate_configuration": "lists the reasons against itself",
}

# Question 7. What a selector might want to know.
INPUTS = {
    "attn_type": "decoder, encoder, or between the two",
    "batch_size": "how many requests run at once",
    "block_size": "tokens of one block, if the user set it",
    "dtype": "the model's number format",
    "has_sink": "whether the softmax has attention sinks",
    "head_size": "how long one head is",
    "is_prefill": "whether the step is a prefill or a decode",
    "kv_cache_dtype": "the cache's number format",
    "max_model_len": "how long a sequence may get",
    "num_layers": "how many layers the model has",
    "seq_lens": "how long the requests are now",
    "sliding_window": "how far back a layer may look",
    "use_mla": "whether the model has latent attention",
}

# Self-grading. Functions of vLLM 0.22.1 with their files: the stations of two backends, and others that lie beside the way.
STATIONS = {
    "_custom_ops.py:reshape_and_cache_flash": "writes keys and values into a cache of FlashAttention's layout",
    "attention.py:Attention.forward": "the layer: takes query, key and value of this step",
    "attention.py:get_attention_context": "takes a layer's metadata and slot mapping out of the forward context",
    "attention.py:unified_attention_with_output": "an operator, opaque to torch.compile",
    "attention.py:unified_kv_cache_update": "another operator, opaque to torch.compile",
    "backend.py:AttentionMetadataBuilder.build": "makes one step's metadata for the kernels",
    "flash_attn.py:FlashAttentionBackend.get_impl_cls": "names the class that computes",
    "flash_attn.py:FlashAttentionImpl.do_kv_cache_update": "a method of FLASH_ATTN's impl",
    "flash_attn.py:FlashAttentionImpl.forward": "another method of FLASH_ATTN's impl",
    "flash_attn_interface.py:flash_attn_varlen_func": "computes attention over a paged cache",
    "forward_context.py:get_forward_context": "hands out what the runner has put there for this step",
    "llama.py:LlamaAttention.forward": "the model: projects, splits, rotates, attends, projects",
    "selector.py:get_attn_backend": "picks the backend of a layer",
    "triton_attn.py:TritonAttentionImpl.do_kv_cache_update": "a method of TRITON_ATTN's impl",
    "triton_attn.py:TritonAttentionImpl.forward": "another method of TRITON_ATTN's impl",
    "triton_reshape_and_cache_flash.py:triton_reshape_and_cache_flash": "writes keys and values with a Triton kernel",
    "triton_unified_attention.py:unified_attention": "computes attention with a Triton kernel",
}

USUAL: dict[str, Any] = {
    "capability": (9, 0),
    "dtype": "bfloat16",
    "head_size": 128,
    "kv_cache_dtype": "auto",
    "block_size": None,
    "use_mla": False,
    "has_sink": False,
    "sliding_window": None,
    "attention_backend": None,  # --attention-backend
    "environment": {},
}

# Question 7's ten: the fields of a deployment, what the model has besides, and what the user asked for.
_CHANGES: dict[str, dict[str, Any]] = {
    "hopper-plain": {},
    "hopper-flag": {"attention_backend": "TRITON_ATTN"},
    "hopper-environment": {"environment": {"VLLM_ATTENTION_BACKEND": "TRITON_ATTN"}},
    "hopper-auto": {"attention_backend": "auto", "kv_cache_dtype": "fp8"},
    "hopper-mla-flag": {"head_size": 576, "use_mla": True, "attention_backend": "FLASH_ATTN"},
    "blackwell-plain": {"capability": (10, 0)},
    "blackwell-both": {
        "capability": (10, 0),
        "attention_backend": "triton_attn",
        "environment": {"VLLM_ATTENTION_BACKEND": "FLASH_ATTN"},
    },
    "ada-window": {"capability": (8, 9), "sliding_window": 4096},
    "ampere-sinks": {"capability": (8, 0), "head_size": 64, "has_sink": True, "sliding_window": 128},
    "turing-flag": {
        "capability": (7, 5),
        "dtype": "float16",
        "head_size": 64,
        "attention_backend": "FLASH_ATTN",
    },
}
CONFIGURATIONS = {name: {**USUAL, **changes} for name, changes in _CHANGES.items()}


def deployment_of(configuration: Mapping[str, Any]) -> Deployment:
    """The configuration as the selector sees it. What the selector does not take is left out."""
    fields = ("capability", "dtype", "head_size", "kv_cache_dtype", "block_size", "use_mla", "has_sink")
    return Deployment(**{name: configuration[name] for name in fields})


def model() -> Table:
    """Question 4's candidates."""
    return _table("What a model may or may not know", MODEL)


def methods() -> Table:
    """Question 5's candidates."""
    return _table("Methods and functions of vLLM 0.22.1", METHODS)


def inputs() -> Table:
    """Question 7's candidates."""
    return _table("What a selector might look at", INPUTS)


def configurations() -> Table:
    """Question 7's ten configurations; what all of them share is left out."""
    rows = []
    for name, configuration in CONFIGURATIONS.items():
        major, minor = configuration["capability"]
        row = [name, f"{major}.{minor}", configuration["dtype"], str(configuration["head_size"])]
        row += [
            configuration["kv_cache_dtype"],
            *(_yes(configuration[flag]) for flag in ("use_mla", "has_sink")),
        ]
        row += [
            str(configuration["sliding_window"] or "none"),
            configuration["attention_backend"] or "not given",
        ]
        row += [configuration["environment"].get("VLLM_ATTENTION_BACKEND", "not set")]
        rows.append(row)
    header = [
        "configuration",
        "capability",
        "dtype",
        "head size",
        "KV dtype",
        "MLA",
        "sinks",
        "sliding window",
    ]
    return Table("Ten configurations", [*header, "--attention-backend", "VLLM_ATTENTION_BACKEND"], rows)


def _table(caption: str, words: Mapping[str, str]) -> Table:
    return Table(caption, ["word", "meaning"], [[word, meaning] for word, meaning in words.items()])


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
