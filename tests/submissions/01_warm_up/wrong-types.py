# Answers of another type or shape than asked for.

# %% q1-verdicts-code
q1_verdicts = ["FLASH_ATTN"] * 8


# %% q2-metadata-code
def build_metadata(block_tables, num_computed_tokens, num_new_tokens, block_size):
    seq_lens = [computed + new for computed, new in zip(num_computed_tokens, num_new_tokens)]
    return {"block_table": block_tables, "slot_mapping": seq_lens, "seq_lens": seq_lens}


# %% q3-update-code
def online_softmax_update(state, scores, values):
    return torch.softmax(scores, dim=-1) @ values


def finalize(state):
    return state


# %% q3-merge-code
merge_states = 42
