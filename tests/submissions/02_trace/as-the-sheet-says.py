# Answers as the question goes around: the write in FlashAttentionImpl.forward, the environment variable, the window.

# %% q4-forward-code
q4_passed = {"query", "key", "value"}
q4_unknown = {"block_table", "slot_mapping", "seq_lens", "query_start_loc", "kv_cache", "cache_layout", "kernel"}
q4_metadata_source = "vllm.forward_context:get_forward_context"

# %% q6-paths-code
q6_write = [
    "attention.py:Attention.forward",
    "attention.py:unified_attention_with_output",
    "flash_attn.py:592",
    "flash_attn.py:reshape_and_cache_flash",
]
q6_read = [
    "attention.py:Attention.forward",
    "attention.py:unified_attention_with_output",
    "flash_attn.py:FlashAttentionImpl.forward",
    "flash_attn.py:flash_attn_varlen_func",
]
q6_arguments = {"slot_mapping": "slot_mapping", "block_table": "attn_metadata"}

# %% q7-inputs-code
q7_inputs = {"head_size", "dtype", "sliding_window"}
q7_override = "VLLM_ATTENTION_BACKEND=TRITON_ATTN"
