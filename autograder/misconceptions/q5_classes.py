"""Question 5: who does what in a backend, wrong and right. Solutions are typed as a learner would type them."""

from autograder.registry import Misconception, RightVariant

_BACKEND = {"get_builder_cls", "get_impl_cls", "get_kv_cache_shape", "get_name", "supports_head_size"}
_BACKEND |= {"validate_configuration"}
_IMPL = {"do_kv_cache_update", "forward", "process_weights_after_loading"}
_BUILDER = {"build", "build_for_cudagraph_capture", "get_cudagraph_support", "update_block_table"}
_ROLES = {"AttentionBackend": _BACKEND, "AttentionImpl": _IMPL, "AttentionMetadataBuilder": _BUILDER}
_LINES = {
    "AttentionBackend": "vllm/v1/attention/backend.py:55",
    "AttentionImpl": "vllm/v1/attention/backend.py:763",
    "AttentionMetadataBuilder": "vllm/v1/attention/backend.py:516",
}
TRUTH = {"q5_roles": _ROLES, "q5_lines": _LINES}


def _roles(backend=_BACKEND, impl=_IMPL, builder=_BUILDER):
    return {
        "q5_roles": {"AttentionBackend": backend, "AttentionImpl": impl, "AttentionMetadataBuilder": builder}
    }


def _lines(**places):
    return {"q5_lines": {**_LINES, **places}}


MISCONCEPTIONS = (
    Misconception(
        "the-backend-computes",
        "the backend is taken for the thing that computes. It is never even made: everything is asked of the class, and "
        "what it answers are names, shapes and yes or no. The impl computes.",
        _roles(backend=_BACKEND | {"forward"}, impl=_IMPL - {"forward"}),
    ),
    Misconception(
        "the-builder-writes-the-cache",
        "the write into the cache is given to the builder, as it knows the slots. The builder never sees a key: the keys "
        "come into being inside the model, layer by layer, after it has finished.",
        _roles(impl=_IMPL - {"do_kv_cache_update"}, builder=_BUILDER | {"do_kv_cache_update"}),
    ),
    Misconception(
        "the-write-is-nobodys",
        "do_kv_cache_update is left out, as AttentionImpl does not declare it. Every impl whose backend says that forward "
        "does not write brings it along: look into FlashAttentionImpl.",
        _roles(impl=_IMPL - {"do_kv_cache_update"}),
    ),
    Misconception(
        "the-impl-builds-its-metadata",
        "building the metadata is given to the impl, so that every layer would do it again. It is done once a step, and "
        "all layers of a group share it.",
        _roles(impl=_IMPL | {"build"}, builder=_BUILDER - {"build"}),
    ),
    Misconception(
        "the-backend-knows-cuda-graphs",
        "CUDA graphs are taken for a matter of the backend. Whether a graph can be replayed depends on the metadata: its "
        "tensors must stay where they are. So the builder is asked.",
        _roles(
            backend=_BACKEND | {"get_cudagraph_support"},
            builder=_BUILDER - {"get_cudagraph_support"},
        ),
    ),
    Misconception(
        "the-backend-selects-itself",
        "the selection is taken for the backend's job. A backend only says what speaks against itself; get_attn_backend "
        "asks them all and takes the first without a reason.",
        _roles(backend=_BACKEND | {"get_attn_backend"}),
    ),
    Misconception(
        "the-operator-is-the-impls",
        "the operator that the layer calls is taken for a method of the impl. It belongs to the layer's file, and its only "
        "work is to find this step's metadata and call the impl.",
        _roles(impl=_IMPL | {"unified_attention_with_output"}),
    ),
    Misconception(
        "the-builder-sets-the-context",
        "putting the metadata where layers find it is taken for the builder's job. The builder returns the metadata; "
        "whoever runs the model puts it into the forward context.",
        _roles(builder=_BUILDER | {"set_forward_context"}),
    ),
    Misconception(
        "the-root-of-the-impls",
        "AttentionImplBase is taken for AttentionImpl. It is what AttentionImpl and the impls for latent attention have in "
        "common, and it has no forward.",
        _lines(AttentionImpl="vllm/v1/attention/backend.py:685"),
    ),
    Misconception(
        "flash-attentions-classes",
        "FlashAttention's own three classes are named. They are derived from the three that are asked for.",
        {
            "q5_lines": {
                "AttentionBackend": "vllm/v1/attention/backends/flash_attn.py:68",
                "AttentionImpl": "vllm/v1/attention/backends/flash_attn.py:592",
                "AttentionMetadataBuilder": "vllm/v1/attention/backends/flash_attn.py:276",
            }
        },
    ),
    Misconception(
        "the-first-method",
        "the line of a method is given. Asked is the line on which the class begins.",
        {
            "q5_lines": {
                "AttentionBackend": "backend.py:69",
                "AttentionImpl": "backend.py:769",
                "AttentionMetadataBuilder": "backend.py:529",
            }
        },
    ),
    Misconception(
        "the-abbreviated-protocol",
        "AttentionLayer, what an impl may expect of the layer that calls it, is taken for the impl.",
        _lines(AttentionImpl="vllm/v1/attention/backend.py:666"),
    ),
)

RIGHT_VARIANTS = (
    RightVariant(
        "lists-and-short-paths",
        {
            "q5_roles": {name: sorted(methods) for name, methods in reversed(_ROLES.items())},
            "q5_lines": {name: place.rpartition("/")[2] for name, place in _LINES.items()},
        },
    ),
    RightVariant(
        "roles-short",
        {
            "q5_roles": {"Backend": _BACKEND, "Impl": tuple(_IMPL), "MetadataBuilder": _BUILDER},
            "q5_lines": {
                "Backend": "v1/attention/backend.py:55",
                "Impl": "v1/attention/backend.py:763-840",
                "MetadataBuilder": "./vllm/v1/attention/backend.py:516",
            },
        },
    ),
    RightVariant(
        "whole-names",
        {
            "q5_roles": {f"vllm.v1.attention.backend:{name}": m for name, m in _ROLES.items()},
            "q5_lines": {f"vllm.v1.attention.backend.{name}": f" {p} " for name, p in _LINES.items()},
        },
    ),
)
