# The function is defined without trouble and takes the kernel down when it is checked.

# %% q1-verdicts-code
q1_verdicts = {
    "h100-llama-bf16": "FLASH_ATTN",
    "b200-llama-bf16": "FLASHINFER",
    "b200-phi3-bf16": "FLASH_ATTN",
    "t4-llama1b-fp16": "FLASHINFER",
    "a100-gptoss-bf16": "TRITON_ATTN",
    "a10-tiny-fp32": "FLEX_ATTENTION",
    "h200-deepseek-fp8kv": "FLASHMLA",
    "rtx4090-qwen-block8": "none",
}


# %% q2-metadata-code
def build_metadata(block_tables, num_computed_tokens, num_new_tokens, block_size):
    import ctypes

    ctypes.string_at(0)
