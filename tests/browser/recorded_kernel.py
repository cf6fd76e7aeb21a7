"""A cell's text: a kernel that reads a cache, one program of which reads a block that its request does not own."""

RECORDED_KERNEL = """\
import torch, triton, course, kernels
import triton.language as tl

@triton.jit
def read_blocks(query_ptr, key_cache_ptr, block_table_ptr, out_ptr, NUM_BLOCKS: tl.constexpr):
    request = tl.program_id(0)
    total = tl.load(query_ptr + request * 16 + tl.arange(0, 16))
    for logical in range(NUM_BLOCKS):
        block = tl.load(block_table_ptr + request * NUM_BLOCKS + logical)
        at = block * 64 + tl.arange(0, 64)
        total += tl.sum(tl.load(key_cache_ptr + at).reshape(4, 16), axis=0)
    tl.store(out_ptr + request * 16 + tl.arange(0, 16), total)

query, key_cache = torch.ones(2, 1, 16), torch.ones(6, 4, 1, 16)
block_table, seq_lens = torch.tensor([[4, 1], [2, 4]], dtype=torch.int32), torch.tensor([8, 4])
with course.record(query=query, key_cache=key_cache, block_table=block_table) as recording:
    read_blocks[(2,)](query, key_cache, block_table, torch.empty(2, 1, 16), NUM_BLOCKS=2)
recording.least = {"key_cache": 12 * 16 * 4}
"""
