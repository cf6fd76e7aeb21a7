"""Self-grading: how people draw the way to the kernel, wrong and right. Drawings are typed as a learner would type them."""

from autograder.registry import Misconception, RightVariant

_LAYER = "attention.py:Attention.forward"
_UPDATE = "attention.py:unified_kv_cache_update"
_ATTEND = "attention.py:unified_attention_with_output"
_IMPL_UPDATE = "flash_attn.py:FlashAttentionImpl.do_kv_cache_update"
_IMPL_FORWARD = "flash_attn.py:FlashAttentionImpl.forward"
_WRITES = "_custom_ops.py:reshape_and_cache_flash"
_READS = "flash_attn_interface.py:flash_attn_varlen_func"
_WRITE = [(_LAYER, _UPDATE), (_UPDATE, _IMPL_UPDATE), (_IMPL_UPDATE, _WRITES)]
_READ = [(_LAYER, _ATTEND), (_ATTEND, _IMPL_FORWARD), (_IMPL_FORWARD, _READS)]
TRUTH = {"q_path": [*_WRITE, *_READ]}

MISCONCEPTIONS = (
    Misconception(
        "the-read-alone",
        "only the read is drawn. The keys of this step have to be written first, and by another way.",
        {"q_path": _READ},
    ),
    Misconception(
        "forward-does-both",
        "the impl's forward is drawn as doing both, which was question 6: with FLASH_ATTN the write has an operator and a "
        "method of its own.",
        {"q_path": [*_READ, (_IMPL_FORWARD, _WRITES)]},
    ),
    Misconception(
        "no-operators",
        "the operators between layer and impl are left out. They are where the forward context is read, and what "
        "torch.compile sees of attention.",
        {
            "q_path": [
                (_LAYER, _IMPL_UPDATE),
                (_IMPL_UPDATE, _WRITES),
                (_LAYER, _IMPL_FORWARD),
                (_IMPL_FORWARD, _READS),
            ]
        },
    ),
    Misconception(
        "no-kernels",
        "the drawing ends at the impl. It is called layer, impl, kernel.",
        {"q_path": [*_WRITE[:2], *_READ[:2]]},
    ),
    Misconception(
        "the-backend-on-the-way",
        "the backend's class is drawn as a station. It was asked once for its impl, when the layer was built; no step passes "
        "through it.",
        {
            "q_path": [
                (_LAYER, "flash_attn.py:FlashAttentionBackend.get_impl_cls"),
                ("flash_attn.py:FlashAttentionBackend.get_impl_cls", _IMPL_FORWARD),
                (_IMPL_FORWARD, _READS),
                *_WRITE,
            ]
        },
    ),
    Misconception(
        "arrows-reversed",
        "all arrows point from the callee to the caller.",
        {"q_path": [(callee, caller) for caller, callee in (*_WRITE, *_READ)]},
    ),
    Misconception(
        "the-layer-calls-the-kernels",
        "the layer is drawn as calling the kernels, with nothing between. Then every model would be tied to one kernel.",
        {"q_path": [(_LAYER, _WRITES), (_LAYER, _READS)]},
    ),
    Misconception(
        "the-operators-in-a-row",
        "the second operator is drawn behind the first, as if the write called the read. The layer calls both, one after "
        "the other.",
        {"q_path": [*_WRITE, (_UPDATE, _ATTEND), *_READ[1:]]},
    ),
    Misconception(
        "without-files",
        "the functions are named without their files. The question is whether you would find them.",
        {
            "q_path": [
                (caller.partition(":")[2], callee.partition(":")[2]) for caller, callee in (*_WRITE, *_READ)
            ]
        },
    ),
)

_OURS = "kernels/backends/layer.py"

RIGHT_VARIANTS = (
    RightVariant(
        "modules-in-another-order",
        {
            "q_path": (
                [
                    "vllm.v1.attention.backends.flash_attn:FlashAttentionImpl.forward",
                    "vllm.vllm_flash_attn:flash_attn_varlen_func",
                ],
                [
                    "vllm.model_executor.layers.attention.attention:Attention.forward",
                    "vllm.model_executor.layers.attention.attention:unified_attention_with_output",
                ],
                ["layers/attention/attention.py:unified_attention_with_output", _IMPL_FORWARD],
                *_WRITE,
            )
        },
    ),
    RightVariant(
        "classes",
        {
            "q_path": [
                ("attention.py:Attention", _UPDATE),
                ("attention.py:Attention", _ATTEND),
                (_UPDATE, "flash_attn.py:FlashAttentionImpl"),
                (_ATTEND, "flash_attn.py:FlashAttentionImpl"),
                ("flash_attn.py:FlashAttentionImpl", "flash_attn.py:reshape_and_cache_flash"),
                ("flash_attn.py:FlashAttentionImpl", "flash_attn.py:flash_attn_varlen_func"),
            ]
        },
    ),
    RightVariant(
        "more-than-asked",
        {
            "q_path": {
                *_WRITE,
                *_READ,
                ("llama.py:LlamaAttention.forward", _LAYER),
                (_UPDATE, "attention.py:get_attention_context"),
                ("attention.py:get_attention_context", "forward_context.py:get_forward_context"),
            }
        },
    ),
    RightVariant(
        "tritons",
        {
            "q_path": [
                (_LAYER, _UPDATE),
                (_LAYER, _ATTEND),
                (_UPDATE, "triton_attn.py:TritonAttentionImpl.do_kv_cache_update"),
                (
                    "triton_attn.py:TritonAttentionImpl.do_kv_cache_update",
                    "triton_reshape_and_cache_flash.py:triton_reshape_and_cache_flash",
                ),
                (_ATTEND, "triton_attn.py:TritonAttentionImpl.forward"),
                (
                    "triton_attn.py:TritonAttentionImpl.forward",
                    "triton_unified_attention.py:unified_attention",
                ),
            ]
        },
    ),
    RightVariant(
        "our-own",
        {
            "q_path": [
                (f"{_OURS}:Attention.forward", f"{_OURS}:unified_kv_cache_update"),
                (f"{_OURS}:unified_kv_cache_update", "paged_torch.py:PagedTorchImpl.do_kv_cache_update"),
                ("paged_torch.py:PagedTorchImpl.do_kv_cache_update", "kernels.reference:reshape_and_cache"),
                ("layer.py:Attention.forward", "layer.py:unified_attention_with_output"),
                (
                    "layer.py:unified_attention_with_output",
                    "kernels.backends.paged_torch:PagedTorchImpl.forward",
                ),
                ("kernels.backends.paged_torch:PagedTorchImpl.forward", "kernels.reference:paged_attention"),
            ]
        },
    ),
    RightVariant(
        "our-own-on-triton",
        {
            "q_path": [
                ("layer.py:Attention", "layer.py:unified_kv_cache_update"),
                ("layer.py:unified_kv_cache_update", "backends/triton_attn.py:TritonAttentionImpl"),
                (
                    "kernels/backends/triton_attn.py:TritonAttentionImpl",
                    "kernels/kv_cache.py:reshape_and_cache",
                ),
                ("layer.py:Attention", "layer.py:unified_attention_with_output"),
                (
                    "layer.py:unified_attention_with_output",
                    "kernels/backends/triton_attn.py:TritonAttentionImpl",
                ),
                ("kernels/backends/triton_attn.py:TritonAttentionImpl", "kernels/prefill.py:paged_prefill"),
            ]
        },
    ),
)
