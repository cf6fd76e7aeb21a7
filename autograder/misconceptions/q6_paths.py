"""Question 6: where people see the cache written and read, wrong and right. Solutions are typed as a learner would."""

from autograder.registry import Misconception, RightVariant

_LAYER = "vllm.model_executor.layers.attention.attention:"
_FLASH = "vllm.v1.attention.backends.flash_attn:FlashAttentionImpl"
_TRITON = "vllm.v1.attention.backends.triton_attn:TritonAttentionImpl"
_WRITE = [
    f"{_LAYER}Attention.forward",
    f"{_LAYER}unified_kv_cache_update",
    f"{_FLASH}.do_kv_cache_update",
    "vllm._custom_ops:reshape_and_cache_flash",
]
_READ = [
    f"{_LAYER}Attention.forward",
    f"{_LAYER}unified_attention_with_output",
    f"{_FLASH}.forward",
    "vllm.vllm_flash_attn.flash_attn_interface:flash_attn_varlen_func",
]
_ARGUMENTS = {"slot_mapping": "slot_mapping", "block_table": "attn_metadata"}
TRUTH = {"q6_write": _WRITE, "q6_read": _READ, "q6_arguments": _ARGUMENTS}

MISCONCEPTIONS = (
    Misconception(
        "forward-writes",
        "the write is looked for in FlashAttentionImpl.forward, where the question as it is commonly asked sends you. At "
        "0.22.1 it is not there: forward_includes_kv_cache_update (backends/flash_attn.py:96) is False, so the layer has the "
        "write done before, by another operator.",
        {"q6_write": [*_READ[:3], _WRITE[3]]},
    ),
    Misconception(
        "read-for-write",
        "the two paths are swapped: slots say where to write, the block table where to read.",
        {"q6_write": _READ, "q6_read": _WRITE},
    ),
    Misconception(
        "write-without-the-operator",
        "the layer is taken to call its impl itself. Between them stands an operator: torch.compile sees one opaque call, "
        "and the forward context is read inside of it.",
        {"q6_write": [_WRITE[0], *_WRITE[2:]]},
    ),
    Misconception(
        "read-without-the-operator",
        "the layer is taken to call its impl's forward itself. Between them stands an operator: torch.compile sees one "
        "opaque call, and the forward context is read inside of it.",
        {"q6_read": [_READ[0], *_READ[2:]]},
    ),
    Misconception(
        "write-stops-at-the-impl",
        "the path ends at the impl's method. That still writes nothing: follow it to the function that it calls.",
        {"q6_write": _WRITE[:3]},
    ),
    Misconception(
        "read-stops-at-the-impl",
        "the path ends at the impl's method. That still reads no block: follow it to the function that it calls.",
        {"q6_read": _READ[:3]},
    ),
    Misconception(
        "the-lookup-on-the-path",
        "get_attention_context is taken for a station of the path. It is a side street: called, answered, left.",
        {"q6_write": [*_WRITE[:2], f"{_LAYER}get_attention_context", *_WRITE[2:]]},
    ),
    Misconception(
        "from-the-model",
        "the path begins in the model. Asked is the way from the layer's forward on; what comes before it is every "
        "model's own affair.",
        {"q6_read": ["vllm.model_executor.models.llama:LlamaAttention.forward", *_READ]},
    ),
    Misconception(
        "tritons-path",
        "TRITON_ATTN's impl is followed. The way to it is the same; asked is FLASH_ATTN's.",
        {
            "q6_read": [
                *_READ[:2],
                f"{_TRITON}.forward",
                "vllm.v1.attention.ops.triton_unified_attention:unified_attention",
            ]
        },
    ),
    Misconception(
        "the-declaration",
        "the base class's forward is named, which only says that there must be one. The object is of FLASH_ATTN's class.",
        {"q6_read": [*_READ[:2], "vllm.v1.attention.backend:AttentionImpl.forward", _READ[3]]},
    ),
    Misconception(
        "our-own-path",
        "the path is the one of our own layer, as the tracer prints it. The roles are the same; asked are vLLM's functions.",
        {
            "q6_write": [
                "kernels.backends.layer:Attention.forward",
                "kernels.backends.layer:unified_kv_cache_update",
                "kernels.backends.paged_torch:PagedTorchImpl.do_kv_cache_update",
                "kernels.reference:reshape_and_cache",
            ]
        },
    ),
    Misconception(
        "slots-in-the-metadata",
        "the slot mapping is taken from attn_metadata. There is a field of that name, but the write gets no metadata: "
        "ForwardContext.slot_mapping goes to it as an argument of its own.",
        {"q6_arguments": _ARGUMENTS | {"slot_mapping": "attn_metadata.slot_mapping"}},
    ),
    Misconception(
        "block-table-by-itself",
        "the block table is taken for an argument of its own. It arrives inside of another one, and forward takes it out as "
        "attn_metadata.block_table (backends/flash_attn.py:763).",
        {"q6_arguments": _ARGUMENTS | {"block_table": "block_table"}},
    ),
    Misconception(
        "arguments-swapped",
        "the two are swapped: the slot mapping belongs to the write, the block table to the read.",
        {"q6_arguments": {"slot_mapping": "attn_metadata", "block_table": "slot_mapping"}},
    ),
)

RIGHT_VARIANTS = (
    RightVariant(
        "paths-for-modules",
        {
            "q6_write": [
                "vllm/model_executor/layers/attention/attention.py:Attention.forward",
                "attention.py:unified_kv_cache_update",
                "flash_attn.py:FlashAttentionImpl.do_kv_cache_update",
                "flash_attn.py:reshape_and_cache_flash",
            ],
            "q6_read": (
                "layers/attention/attention.py:Attention.forward",
                "attention.py:unified_attention_with_output",
                "v1/attention/backends/flash_attn.py:FlashAttentionImpl.forward",
                "vllm.vllm_flash_attn:flash_attn_varlen_func",
            ),
            "q6_arguments": {
                "block_table": "FlashAttentionImpl.forward:attn_metadata.block_table",
                "slot_mapping": "FlashAttentionImpl.do_kv_cache_update:slot_mapping",
            },
        },
    ),
    RightVariant(
        "torch-operators",
        {
            "q6_write": [
                "Attention.forward",
                "torch.ops.vllm.unified_kv_cache_update",
                "unified_kv_cache_update",
                "FlashAttentionImpl.do_kv_cache_update()",
                "fa_utils:reshape_and_cache_flash",
                "torch.ops._C_cache_ops.reshape_and_cache_flash",
            ],
            "q6_read": [
                "Attention.forward",
                "torch.ops.vllm.unified_attention_with_output",
                "FlashAttentionImpl.forward",
                "flash_attn_varlen_func",
            ],
            "q6_arguments": {
                "slot_mapping": "do_kv_cache_update(slot_mapping)",
                "block_table": "`attn_metadata`",
            },
        },
    ),
    RightVariant(
        "lines",
        {
            "q6_write": [
                "attention.py:437",
                "attention.py:691",
                "flash_attn.py:850",
                "vllm/_custom_ops.py:2591",
            ],
            "q6_read": [
                "attention.py:437",
                "attention.py:733",
                "backends/flash_attn.py:667",
                "flash_attn_interface.py:176",
            ],
        },
    ),
    RightVariant(
        "classes-for-their-methods",
        {
            "q6_write": [f"{_LAYER}Attention", _WRITE[1], _FLASH, _WRITE[3]],
            "q6_read": [f"{_LAYER}Attention", _READ[1], _FLASH, _READ[3]],
            "q6_arguments": {
                "slot_mapping": "layer_slot_mapping",
                "block_table": "attn_metadata.block_table",
            },
        },
    ),
    RightVariant(
        "by-way-of-context-parallelism",
        {"q6_read": [*_READ[:3], f"{_FLASH}._forward_with_dcp", _READ[3]]},
    ),
    RightVariant(
        "by-way-of-a-cascade",
        {"q6_read": [*_READ[:3], "vllm.v1.attention.backends.flash_attn:cascade_attention", _READ[3]]},
    ),
)
