"""What is measured: batches of requests, the bytes that they must move and the operations that they must do."""

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """Requests as (query tokens, sequence length), for a model with grouped-query attention in bfloat16.

    kv_dtype: "bfloat16" or "float8_e4m3fn", a cache of 8-bit numbers with one scale for keys and one for values.
    sliding_window: how many positions a query sees, its own included; None for all.
    latent_size: not None for latent attention (MLA): every head reads one cache whose rows are head_size wide, the first
        latent_size elements of a row are also its value, and there is no value cache.
    """

    name: str
    requests: tuple[tuple[int, int], ...]
    num_heads: int = 32
    num_kv_heads: int = 8
    head_size: int = 128
    block_size: int = 16
    kv_dtype: str = "bfloat16"
    sliding_window: int | None = None
    latent_size: int | None = None

    @property
    def kind(self) -> str:
        """ "decode", one query token in every request; "prefill", several in every request; "mixed"; "latent"."""
        if self.latent_size is not None:
            return "latent"
        single = [n_q == 1 for n_q, _ in self.requests]
        return "decode" if all(single) else "mixed" if any(single) else "prefill"

    @property
    def num_tokens(self) -> int:
        return sum(n_q for n_q, _ in self.requests)

    @property
    def num_blocks(self) -> list[int]:
        """Blocks of the cache that each request owns."""
        return [-(-seq_len // self.block_size) for _, seq_len in self.requests]

    @property
    def value_size(self) -> int:
        """Elements of one head's output."""
        return self.head_size if self.latent_size is None else self.latent_size

    @property
    def kv_bytes(self) -> int:
        """Keys and values that some query sees, each counted once."""
        num_slots = sum(seq_len - self._first_seen(n_q, seq_len) for n_q, seq_len in self.requests)
        per_slot = self.head_size if self.latent_size is not None else 2 * self.head_size
        return num_slots * self.num_kv_heads * per_slot * (1 if self.kv_dtype.startswith("float8") else 2)

    @property
    def bytes(self) -> int:
        """The least that has to move: keys and values once, queries in, outputs out. Tables and lengths left out."""
        return self.kv_bytes + 2 * self.num_tokens * self.num_heads * (self.head_size + self.value_size)

    @property
    def flops(self) -> int:
        """Two matrix products over the pairs of a query and a key that it sees; a multiply-add counts as two."""
        pairs = sum(self._pairs(n_q, seq_len) for n_q, seq_len in self.requests)
        return 2 * (self.head_size + self.value_size) * self.num_heads * pairs

    def _first_seen(self, n_q: int, seq_len: int) -> int:
        """The first position that the first of the last n_q tokens sees."""
        return 0 if self.sliding_window is None else max(0, seq_len - n_q + 1 - self.sliding_window)

    def _pairs(self, n_q: int, seq_len: int) -> int:
        """Query i sees seq_len - n_q + i + 1 positions, or the window where that is less."""
        window = seq_len if self.sliding_window is None else self.sliding_window
        growing = max(
            0, min(seq_len, window) - (seq_len - n_q)
        )  # queries that see less than a whole window, and one more
        seen_by_first = seq_len - n_q + 1
        return growing * seen_by_first + growing * (growing - 1) // 2 + (n_q - growing) * window


def _ragged_lengths(count: int) -> list[int]:
    """Log-normal lengths from 32 to 16384 with a median of about 900: many short requests, some very long."""
    generator = random.Random(1)
    return [min(16384, max(32, int(math.exp(generator.gauss(6.8, 0.9))))) for _ in range(count)]


CASES = (
    # One model, Llama-like: decode, prefill, and both in one batch.
    Case("decode 1 x 32k", ((1, 32768),)),
    Case("decode 8 x 8k", ((1, 8192),) * 8),
    Case("decode 64 x 2k", ((1, 2048),) * 64),
    Case("decode 256 x 1k", ((1, 1024),) * 256),
    Case("decode 512 x 128", ((1, 128),) * 512),
    Case("decode 128 x 8k", ((1, 8192),) * 128),
    Case("decode 128 ragged", tuple((1, length) for length in _ragged_lengths(128))),
    Case("prefill 1 x 2k", ((2048, 2048),)),
    Case("prefill 1 x 8k", ((8192, 8192),)),
    Case("prefill 1 x 32k", ((32768, 32768),)),
    Case("prefill 4 x 4k", ((4096, 4096),) * 4),
    Case("2k queries on 16k", ((2048, 16384),)),
    Case("2k prefill + 64 decodes", ((2048, 2048), *((1, 2048),) * 64)),
    # Other shapes.
    Case("decode 64 x 8k, MQA", ((1, 8192),) * 64, num_kv_heads=1),
    Case("decode 64 x 2k, GQA 7", ((1, 2048),) * 64, num_heads=28, num_kv_heads=4),
    Case("prefill 1 x 8k, GQA 7", ((8192, 8192),), num_heads=28, num_kv_heads=4),
    Case("decode 64 x 2k, head size 64", ((1, 2048),) * 64, head_size=64),
    Case("prefill 1 x 8k, head size 64", ((8192, 8192),), head_size=64),
    Case("decode 64 x 2k, head size 256", ((1, 2048),) * 64, head_size=256),
    Case("prefill 1 x 8k, head size 256", ((8192, 8192),), head_size=256),
    Case("decode 64 x 2k, block size 64", ((1, 2048),) * 64, block_size=64),
    Case("prefill 1 x 8k, block size 64", ((8192, 8192),), block_size=64),
    # Other features.
    Case("decode 128 x 8k, fp8 cache", ((1, 8192),) * 128, kv_dtype="float8_e4m3fn"),
    Case("decode 32 x 32k, window 4k", ((1, 32768),) * 32, sliding_window=4096),
    Case("prefill 1 x 32k, window 4k", ((32768, 32768),), sliding_window=4096),
    Case(
        "latent decode 64 x 4k",
        ((1, 4096),) * 64,
        num_heads=128,
        num_kv_heads=1,
        head_size=576,
        block_size=64,
        latent_size=512,
    ),
)


def choose_cases(words: list[str]) -> list[Case]:
    """The cases whose name contains any of the words; all without words. Raises ValueError where there is none."""
    chosen = [case for case in CASES if not words or any(word in case.name for word in words)]
    if not chosen:
        names = ", ".join(case.name for case in CASES)
        raise ValueError(f"cases: expected part of a case's name ({names}), got {' '.join(words)!r}")
    return chosen
