# A slip of the pen: the cell does not even compile, so that the name is never defined.

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
    slots = [
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
def online_softmax_update(state, scores, values):
    m, l, acc = state
    m_new = torch.maximum(m, scores.amax(dim=-1))
    base = m_new.masked_fill(m_new == -math.inf, 0.0)
    old = torch.exp(m - base)
    weights = torch.exp(scores - base.unsqueeze(-1))
    return m_new, old * l + weights.sum(-1), old.unsqueeze(-1) * acc + weights @ values


def finalize(state):
    m, l, acc = state
    return acc / l.clamp(min=1.0).unsqueeze(-1)


# %% q3-merge-code
def merge_states(a, b):
    m = torch.maximum(a[0], b[0])
    base = m.masked_fill(m == -math.inf, 0.0)
    wa, wb = torch.exp(a[0] - base), torch.exp(b[0] - base)
    return m, wa * a[1] + wb * b[1], wa.unsqueeze(-1) * a[2] + wb.unsqueeze(-1) * b[2]
