"""From lists to the tensors of a step: what an engine does before it calls builder and model.

The tensors are made once and filled anew for each step, as vLLM's model runner does,
`vllm/v1/worker/gpu_model_runner.py:2183` (`_build_attention_metadata`): a CUDA graph finds the next step's numbers at the
same addresses. Whoever remembers a tensor instead of reading it again gets the next step's numbers, or worse, last
step's.
"""

from collections.abc import Sequence

import torch

from kernels.backends.backend import CommonAttentionMetadata

__all__ = ["StepTensors"]


class StepTensors:
    """Room for the metadata of any step of up to `max_num_reqs` requests and `max_num_tokens` tokens."""

    def __init__(
        self,
        max_num_reqs: int,
        max_num_tokens: int,
        max_num_blocks: int,
        block_size: int,
        device: torch.device,
        *,
        unused_block: int = 0,
    ) -> None:
        """max_num_blocks: of one request. unused_block: what block tables hold past a request's end."""
        self.block_size = block_size
        self.unused_block = unused_block
        self.query_start_loc = torch.zeros(max_num_reqs + 1, dtype=torch.int32, device=device)
        self.seq_lens = torch.zeros(max_num_reqs, dtype=torch.int32, device=device)
        self.block_table = torch.zeros(max_num_reqs, max_num_blocks, dtype=torch.int32, device=device)
        self.slot_mapping = torch.zeros(max_num_tokens, dtype=torch.int64, device=device)

    def fill(
        self,
        block_tables: Sequence[Sequence[int]],
        seq_lens: Sequence[int],
        query_lens: Sequence[int],
        *,
        num_tokens: int | None = None,
    ) -> CommonAttentionMetadata:
        """The metadata of a step; its tensors are views of this object's.

        block_tables: each request's blocks in order. seq_lens: tokens once this step's are written.
        query_lens: this step's tokens, the last of each sequence; those of a request of length 0 are not written.
        num_tokens: rows of the layer's tensors, those of padding included; None for no padding.
        Raises ValueError where there is no room, or the lists do not fit each other.
        """
        num_reqs, num_actual_tokens = len(seq_lens), sum(query_lens)
        num_tokens = num_actual_tokens if num_tokens is None else num_tokens
        if not len(block_tables) == num_reqs == len(query_lens):
            raise ValueError(
                "block_tables, seq_lens, query_lens: expected an entry for each request in each, got "
                f"{len(block_tables)}, {num_reqs} and {len(query_lens)}"
            )
        if num_reqs > len(self.seq_lens) or not num_actual_tokens <= num_tokens <= len(self.slot_mapping):
            raise ValueError(
                f"query_lens: expected up to {len(self.seq_lens)} requests and {len(self.slot_mapping)} tokens, "
                f"got {num_reqs} and {num_actual_tokens} of {num_tokens}"
            )
        table = torch.full((num_reqs, self.block_table.shape[1]), self.unused_block, dtype=torch.int32)
        slots = []
        for request, (blocks, seq_len, query_len) in enumerate(
            zip(block_tables, seq_lens, query_lens, strict=True)
        ):
            if seq_len > len(blocks) * self.block_size or 0 < seq_len < query_len:
                raise ValueError(
                    f"seq_lens[{request}]: expected 0, or {query_len} to {len(blocks) * self.block_size} for "
                    f"{query_len} query tokens in {len(blocks)} blocks, got {seq_len}"
                )
            table[request, : len(blocks)] = torch.tensor(blocks, dtype=torch.int32)
            slots += [self._slot(blocks, seq_len - query_len + i) for i in range(query_len)]
        slots += [-1] * (num_tokens - num_actual_tokens)

        query_start_loc_cpu = torch.tensor([0, *query_lens]).cumsum(0).to(torch.int32)
        self.query_start_loc[: num_reqs + 1].copy_(query_start_loc_cpu)
        self.seq_lens[:num_reqs].copy_(torch.tensor(seq_lens, dtype=torch.int32))
        self.block_table[:num_reqs].copy_(table)
        self.slot_mapping[:num_tokens].copy_(torch.tensor(slots, dtype=torch.int64))
        return CommonAttentionMetadata(
            query_start_loc=self.query_start_loc[: num_reqs + 1],
            query_start_loc_cpu=query_start_loc_cpu,
            seq_lens=self.seq_lens[:num_reqs],
            num_reqs=num_reqs,
            num_actual_tokens=num_actual_tokens,
            max_query_len=max(query_lens, default=0),
            max_seq_len=max(seq_lens, default=0),
            block_table_tensor=self.block_table[:num_reqs],
            slot_mapping=self.slot_mapping[:num_tokens],
        )

    def _slot(self, blocks: Sequence[int], position: int) -> int:
        if position < 0:
            return -1
        return blocks[position // self.block_size] * self.block_size + position % self.block_size
