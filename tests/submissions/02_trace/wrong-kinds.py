# Answers of the wrong kind everywhere, and a function that raises.

# %% q4-forward-code
q4_passed = "query, key, value"
q4_unknown = {"block_table": True}
q4_metadata_source = ["vllm.forward_context", "get_forward_context"]

# %% q5-classes-code
q5_roles = ["AttentionBackend", "AttentionImpl", "AttentionMetadataBuilder"]
q5_lines = {"AttentionBackend": 55, "AttentionImpl": 763, "AttentionMetadataBuilder": 516}

# %% q6-paths-code
q6_write = "Attention.forward -> do_kv_cache_update"
q6_read = {"Attention.forward"}
q6_arguments = ["slot_mapping", "attn_metadata"]

# %% q7-inputs-code
q7_inputs = {"head_size": 128}
q7_override = ("--attention-backend", "TRITON_ATTN")


# %% q7-predict-code
def q7_predict(configuration):
    return configuration.backend


# %% self-path-code
q_path = "attention.py -> flash_attn.py"
