"""Question 12: the solution, in which mistakes are made as text (latent_backend.py); source/04_design.py walks through it."""

from dataclasses import dataclass

import torch

from kernels import backends


class LatentBackend(backends.AttentionBackend):
    supported_dtypes = [torch.float16, torch.bfloat16, torch.float32]
    supported_kv_cache_dtypes = ["auto"]
    forward_includes_kv_cache_update = False

    @staticmethod
    def get_name():
        return "CUSTOM"

    @staticmethod
    def get_impl_cls():
        return LatentImpl

    @staticmethod
    def get_builder_cls():
        return LatentMetadataBuilder

    @classmethod
    def is_mla(cls):
        return True

    @staticmethod
    def get_kv_cache_shape(num_blocks, block_size, num_kv_heads, head_size, cache_dtype_str="auto"):
        return (num_blocks, block_size, head_size)


@dataclass
class LatentMetadata:
    num_actual_tokens: int
    query_start_loc: list[int]  # where each request's query tokens begin, and the end
    slots: list[torch.Tensor]  # of each request: the slots of its tokens, in order


class LatentMetadataBuilder(backends.AttentionMetadataBuilder):
    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        common = common_attn_metadata
        block_size = self.kv_cache_spec.block_size
        slots = []
        for request, seq_len in enumerate(common.seq_lens.tolist()):
            position = torch.arange(seq_len, device=common.seq_lens.device)
            block = common.block_table_tensor[request, position // block_size].long()
            slots.append(block * block_size + position % block_size)
        query_start_loc = common.query_start_loc_cpu.tolist()
        return LatentMetadata(common.num_actual_tokens, query_start_loc, slots)


class LatentImpl(backends.MLAAttentionImpl):
    def __init__(self, num_heads, head_size, scale, num_kv_heads, kv_lora_rank, kv_cache_dtype="auto"):
        self.num_heads = num_heads
        self.scale = scale
        self.kv_lora_rank = kv_lora_rank

    def do_kv_cache_update(self, kv_c_normed, k_pe, kv_cache, slot_mapping, kv_cache_dtype, k_scale):
        num_tokens = len(slot_mapping)
        row = torch.cat([kv_c_normed[:num_tokens], k_pe[:num_tokens, 0]], dim=-1)
        written = slot_mapping >= 0
        rows = kv_cache.flatten(0, 1)  # a view: [num_blocks * block_size, head_size]
        rows[slot_mapping[written]] = row[written]

    def forward_mqa(self, q, kv_c_and_k_pe_cache, attn_metadata, layer):
        rows = kv_c_and_k_pe_cache.flatten(0, 1)
        output = q.new_zeros(len(q), self.num_heads, self.kv_lora_rank)
        starts = attn_metadata.query_start_loc
        for request, slots in enumerate(attn_metadata.slots):
            start, end = starts[request], starts[request + 1]
            if len(slots) == 0:
                continue
            key = rows[slots].float()  # [seq_len, head_size], the same for all heads
            value = key[:, : self.kv_lora_rank]
            scores = torch.einsum("qhd,td->hqt", q[start:end].float(), key) * self.scale
            # Query i of n sits at position seq_len - n + i, and sees itself and what came before.
            position = torch.arange(len(slots), device=q.device)
            sits_at = position[len(slots) - (end - start) :]
            scores = scores.masked_fill(position[None, :] > sits_at[:, None], float("-inf"))
            output[start:end] = torch.einsum("hqt,tr->qhr", scores.softmax(dim=-1), value).to(q.dtype)
        return output
