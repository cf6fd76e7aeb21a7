"""Question 12: right backends for latents by other roads than the solution's, as edits of its text."""

SHAPE = "return (num_blocks, block_size, head_size)"
READ_ROWS = "rows = kv_c_and_k_pe_cache.flatten(0, 1)"
PER_TOKEN = """        common = common_attn_metadata
        starts = common.query_start_loc.long()
        token = torch.arange(common.num_actual_tokens, device=starts.device)
        request = torch.searchsorted(starts, token, right=True) - 1
        sees = common.seq_lens[request] - (starts[request + 1] - 1 - token)
        sees = sees.clamp(min=0).to(torch.int32)
        return LatentMetadata(common.num_actual_tokens, common.block_table_tensor[request], sees)"""
OF_TOKENS = (
    (
        "    query_start_loc: list[int]  # where each request's query tokens begin, and the end\n",
        "    block_table: torch.Tensor  # a row for each query token\n",
    ),
    (
        "    slots: list[torch.Tensor]  # of each request: the slots of its tokens, in order\n",
        "    sees: torch.Tensor  # how many tokens it sees\n",
    ),
)


def _kernel(function: str) -> str:
    return f"""        output = q.new_zeros(len(q), self.num_heads, self.kv_lora_rank)
        count = attn_metadata.num_actual_tokens
        {function}(
            q[:count], kv_c_and_k_pe_cache, attn_metadata.block_table, attn_metadata.sees, self.scale,
            kv_lora_rank=self.kv_lora_rank, out=output[:count],
        )
        return output"""


def add_right_variants(latent):
    """Enters them into the collector of the solution's classes."""
    attend = latent.body("LatentImpl", "forward_mqa")
    write = latent.body("LatentImpl", "do_kv_cache_update")
    build = latent.body("LatentMetadataBuilder", "build")
    latent.right(
        "a-request-for-each-token",
        ("from kernels import backends", "from kernels import backends, reference"),
        (build, PER_TOKEN),
        *OF_TOKENS,
        (attend, _kernel("reference.latent_decode")),
    )
    latent.right(
        "head-by-head-in-float64",
        (
            attend,
            """        rows = kv_c_and_k_pe_cache.flatten(0, 1).double()
        output = torch.zeros(q.shape[0], q.shape[1], self.kv_lora_rank, dtype=q.dtype, device=q.device)
        starts = attn_metadata.query_start_loc
        for request, slots in enumerate(attn_metadata.slots):
            count = starts[request + 1] - starts[request]
            for i in range(count if len(slots) else 0):
                seen = rows[slots[: len(slots) - count + i + 1]]
                for head in range(self.num_heads):
                    weight = (seen @ q[starts[request] + i, head].double() * self.scale).softmax(dim=0)
                    output[starts[request] + i, head] = (weight @ seen[:, : self.kv_lora_rank]).to(q.dtype)
        return output""",
        ),
    )
    latent.right(
        "keys-and-values-for-each-head",
        (
            attend,
            """        rows = kv_c_and_k_pe_cache.flatten(0, 1)
        output = q.new_zeros(len(q), self.num_heads, self.kv_lora_rank)
        starts = attn_metadata.query_start_loc
        for request, slots in enumerate(attn_metadata.slots):
            start, end = starts[request], starts[request + 1]
            if len(slots) == 0 or end == start:
                continue
            keys = rows[slots][None].repeat(self.num_heads, 1, 1)
            values = keys[..., : self.kv_lora_rank].contiguous()
            seen = torch.ones(end - start, len(slots), dtype=torch.bool, device=q.device)
            seen = seen.tril(diagonal=len(slots) - (end - start))
            found = torch.nn.functional.scaled_dot_product_attention(
                q[start:end].transpose(0, 1), keys, values, attn_mask=seen, scale=self.scale
            )
            output[start:end] = found.transpose(0, 1)
        return output""",
        ),
    )
    latent.right(
        "block-by-block",
        (
            "    slots: list[torch.Tensor]  # of each request: the slots of its tokens, in order\n",
            "    block_table: torch.Tensor\n    seq_lens: list[int]\n",
        ),
        (
            build,
            """        common = common_attn_metadata
        return LatentMetadata(
            common.num_actual_tokens, common.query_start_loc_cpu.tolist(), common.block_table_tensor, common.seq_lens.tolist()
        )""",
        ),
        (
            attend,
            """        block_size = kv_c_and_k_pe_cache.shape[1]
        output = q.new_zeros(len(q), self.num_heads, self.kv_lora_rank)
        starts = attn_metadata.query_start_loc
        for request, seq_len in enumerate(attn_metadata.seq_lens):
            start, end = starts[request], starts[request + 1]
            query = q[start:end].float() * self.scale
            m = query.new_full(query.shape[:2], -1e30)
            l = torch.zeros_like(m)
            acc = query.new_zeros(*query.shape[:2], self.kv_lora_rank)
            sits_at = torch.arange(seq_len - (end - start), seq_len, device=q.device)
            for first in range(0, seq_len, block_size):
                block = attn_metadata.block_table[request, first // block_size]
                key = kv_c_and_k_pe_cache[block, : min(block_size, seq_len - first)].float()
                position = first + torch.arange(len(key), device=q.device)
                scores = torch.einsum("qhd,td->qht", query, key)
                seen = position[None, None, :] <= sits_at[:, None, None]
                scores = scores.masked_fill(~seen, -1e30)
                m_new = torch.maximum(m, scores.amax(dim=-1))
                p = torch.exp(scores - m_new[..., None]) * seen
                alpha = torch.exp(m - m_new)
                l = l * alpha + p.sum(dim=-1)
                acc = acc * alpha[..., None] + torch.einsum("qht,tr->qhr", p, key[:, : self.kv_lora_rank])
                m = m_new
            output[start:end] = (acc / l[..., None].clamp(min=1e-30)).to(q.dtype)
        return output""",
        ),
    )
    latent.right(
        "a-dimension-for-the-one-head",
        (SHAPE, "return (num_blocks, block_size, num_kv_heads, head_size)"),
        ("from kernels import backends", "from kernels import backends, reference"),
        (
            write,
            """        count = len(slot_mapping)
        row = torch.cat([kv_c_normed[:count, None], k_pe[:count]], dim=-1)
        reference.reshape_and_cache(row, row, kv_cache, kv_cache, slot_mapping)""",
        ),
        (READ_ROWS, "rows = kv_c_and_k_pe_cache.flatten(0, 2)"),
    )
    latent.right(
        "the-builder-reused",
        (
            "from kernels import backends",
            "from kernels import backends, reference\nfrom kernels.backends.triton_mla import TritonMLAMetadataBuilder",
        ),
        (
            latent.whole("LatentMetadataBuilder"),
            "class LatentMetadataBuilder(TritonMLAMetadataBuilder):\n    pass",
        ),
        (attend, _kernel("reference.latent_decode").replace("attn_metadata.sees", "attn_metadata.seq_lens")),
    )
    latent.right(
        "positions-before-latents-on-both-sides",
        (
            "row = torch.cat([kv_c_normed[:num_tokens], k_pe[:num_tokens, 0]], dim=-1)",
            "row = torch.cat([k_pe[:num_tokens, 0], kv_c_normed[:num_tokens]], dim=-1)",
        ),
        ("value = key[:, : self.kv_lora_rank]", "value = key[:, -self.kv_lora_rank :]"),
        (
            "q[start:end].float(), key)",
            "q[start:end].float().roll(key.shape[-1] - self.kv_lora_rank, dims=-1), key)",
        ),
    )
