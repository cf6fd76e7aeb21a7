"""What is measured: batches of requests, the bytes that they must move and the operations that they must do."""

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """Requests as (query tokens, sequence length), for a model with grouped-query attention in a 16-bit dtype."""

    name: str
    requests: tuple[tuple[int, int], ...]
    num_heads: int = 32
    num_kv_heads: int = 8
    head_size: int = 128
    block_size: int = 16
    bytes_per_element: int = 2

    @property
    def is_decode(self) -> bool:
        """One query token in every request: `paged_decode` is measured, else `paged_attention`."""
        return all(n_q == 1 for n_q, _ in self.requests)

    @property
    def num_tokens(self) -> int:
        return sum(n_q for n_q, _ in self.requests)

    @property
    def kv_bytes(self) -> int:
        """Keys and values of all requests, each counted once."""
        num_slots = sum(seq_len for _, seq_len in self.requests)
        return 2 * num_slots * self.num_kv_heads * self.head_size * self.bytes_per_element

    @property
    def bytes(self) -> int:
        """The least that has to move: keys and values once, queries in, outputs out. Tables and lengths left out."""
        return self.kv_bytes + 2 * self.num_tokens * self.num_heads * self.head_size * self.bytes_per_element

    @property
    def flops(self) -> int:
        """Two matrix products over the pairs of a query and a key that it sees; a multiply-add counts as two."""
        pairs = sum(n_q * seq_len - n_q * (n_q - 1) // 2 for n_q, seq_len in self.requests)
        return 4 * self.head_size * self.num_heads * pairs

    @property
    def dense_kind(self) -> str | None:
        """How torch's own attention runs this case on dense keys and values; None where one call cannot."""
        if len(set(self.requests)) != 1:
            return None  # ragged
        n_q, seq_len = self.requests[0]
        if n_q == 1:
            return "decode"
        return "causal" if n_q == seq_len else None


def _ragged_lengths(count: int) -> list[int]:
    """Log-normal lengths from 32 to 16384 with a median of about 900: many short requests, some very long."""
    generator = random.Random(1)
    return [min(16384, max(32, int(math.exp(generator.gauss(6.8, 0.9))))) for _ in range(count)]


CASES = (
    Case("decode 1 x 32k", ((1, 32768),)),
    Case("decode 8 x 8k", ((1, 8192),) * 8),
    Case("decode 64 x 2k", ((1, 2048),) * 64),
    Case("decode 256 x 1k", ((1, 1024),) * 256),
    Case("decode 128 ragged", tuple((1, length) for length in _ragged_lengths(128))),
    Case("prefill 1 x 2k", ((2048, 2048),)),
    Case("prefill 1 x 8k", ((8192, 8192),)),
    Case("prefill 4 x 4k", ((4096, 4096),) * 4),
    Case("2k queries on 16k", ((2048, 16384),)),
    Case("2k prefill + 64 decodes", ((2048, 2048), *((1, 2048),) * 64)),
)
