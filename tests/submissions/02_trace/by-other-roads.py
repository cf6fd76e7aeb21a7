# Everything is right, and hardly anything is written as in the solution.

# %% q4-forward-code
q4_passed = ["query", "key", "value"]
q4_unknown = tuple(sorted({"block_table", "slot_mapping", "seq_lens", "query_start_loc", "kv_cache", "cache_layout", "kernel"}))
q4_metadata_source = "vllm/forward_context.py:ForwardContext.attn_metadata"

# %% q4-explain [markdown]
# The model gives q, k and v. Everything about blocks comes from the forward context, which the runner fills.

# %% q5-classes-code
q5_roles = dict(
    Backend=["get_name", "get_impl_cls", "get_builder_cls", "get_kv_cache_shape", "supports_head_size", "validate_configuration"],
    Impl=["forward", "do_kv_cache_update", "process_weights_after_loading"],
    MetadataBuilder=["build", "build_for_cudagraph_capture", "get_cudagraph_support", "update_block_table"],
)
q5_lines = {"Backend": "backend.py:55", "Impl": "attention/backend.py:763", "MetadataBuilder": "v1/attention/backend.py:516"}

# %% q6-paths-code
q6_write = [
    "Attention.forward",
    "torch.ops.vllm.unified_kv_cache_update",
    "FlashAttentionImpl.do_kv_cache_update",
    "reshape_and_cache_flash",
]
q6_read = [
    "Attention.forward",
    "torch.ops.vllm.unified_attention_with_output",
    "FlashAttentionImpl.forward",
    "FlashAttentionImpl._forward_with_dcp",
    "flash_attn_varlen_func",
]
q6_arguments = {"slot_mapping": "do_kv_cache_update:slot_mapping", "block_table": "attn_metadata.block_table"}

# %% q7-inputs-code
q7_inputs = frozenset({"attn_type", "block_size", "dtype", "has_sink", "head_size", "kv_cache_dtype", "use_mla"})
q7_override = 'LLM("meta-llama/Llama-3.1-8B", attention_backend="TRITON_ATTN")'


# %% q7-predict-code
def q7_predict(configuration):
    deployment = candidates.deployment_of(configuration)
    wish = (configuration["attention_backend"] or "auto").upper()
    order = vllm_rules.priorities(deployment) if wish == "AUTO" else [wish]
    return next((name for name in order if vllm_rules.refusals(name, deployment) == []), "none")


# %% self-path-code
steps = [
    "layer.py:Attention.forward",
    "layer.py:unified_kv_cache_update",
    "paged_torch.py:PagedTorchImpl.do_kv_cache_update",
    "kernels/reference.py:reshape_and_cache",
]
q_path = set(zip(steps, steps[1:]))
steps[1:] = ["layer.py:unified_attention_with_output", "paged_torch.py:PagedTorchImpl.forward", "kernels/reference.py:paged_attention"]
q_path |= set(zip(steps, steps[1:]))
