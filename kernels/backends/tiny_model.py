"""A decoder small enough to run anywhere, with random weights: it says nothing of sense, and the same on every backend.

The model hands query, key and value to its attention layer and knows nothing of caches. It comes in two kinds:
grouped-query attention, and latents (`kv_lora_rank`), the attention of DeepSeek's models. A model of latents runs on a
backend for latents through `MLAAttention`; on any other it computes keys and values of all heads first, as a model
without that trick would. Both give the same numbers, so that a backend for latents can be held against an ordinary one.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from kernels import runtime
from kernels.backends.backend import AttentionBackend
from kernels.backends.layer import Attention
from kernels.backends.mla_layer import MLAAttention
from kernels.backends.selector import get_attn_backend

__all__ = ["TinyConfig", "TinyModel"]


@dataclass(frozen=True)
class TinyConfig:
    """Sizes. kv_lora_rank: numbers of a latent, None for grouped-query attention (then the next is not used).

    qk_rope_head_dim: how many of a key's head_size numbers are the part for the position, which all heads share.
    """

    vocab_size: int = 64
    hidden_size: int = 64
    intermediate_size: int = 96
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 2
    head_size: int = 32
    sliding_window: int | None = None
    kv_lora_rank: int | None = None
    qk_rope_head_dim: int = 8
    rope_theta: float = 10000.0


# Queries, keys and outputs of attention are drawn this much larger, so that what is said depends on what was attended to.
_GAIN = 2.0


class TinyModel(torch.nn.Module):
    """Embedding, layers of attention and MLP, and logits. The same seed gives the same weights on every backend."""

    def __init__(
        self,
        config: TinyConfig | None = None,
        attn_backend: type[AttentionBackend] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        kv_cache_dtype: str = "auto",
        seed: int = 0,
    ) -> None:
        """attn_backend: a backend's class, or None for the selector's choice. Raises ValueError where none is valid."""
        super().__init__()
        self.config = config = TinyConfig() if config is None else config
        self.device = torch.device(runtime.device() if device is None else device)
        self.dtype = dtype
        weights = _Weights(seed, dtype, self.device)
        latent = config.kv_lora_rank is not None
        if attn_backend is None:
            head_size = config.head_size
            if config.kv_lora_rank is not None:
                head_size = config.kv_lora_rank + config.qk_rope_head_dim
            attn_backend = get_attn_backend(
                head_size, dtype, kv_cache_dtype, use_mla=latent, device=self.device
            )
        self.attn_backend = attn_backend
        block = _LatentAttention if latent else _GroupedQueryAttention
        self.embedding = weights.matrix(config.vocab_size, config.hidden_size)
        self.layers = torch.nn.ModuleList(
            _DecoderLayer(
                block(config, weights, attn_backend, f"model.layers.{index}.attn", kv_cache_dtype),
                config,
                weights,
            )
            for index in range(config.num_layers)
        )
        self.lm_head = weights.matrix(config.vocab_size, config.hidden_size)

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Hidden states [num_tokens, hidden_size] of a step's tokens. input_ids, positions: [num_tokens] int64."""
        hidden = self.embedding[input_ids]
        for layer in self.layers:
            hidden = layer(hidden, positions)
        return _norm(hidden)

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[num_tokens, vocab_size] in float32."""
        return functional.linear(hidden, self.lm_head).float()


class _DecoderLayer(torch.nn.Module):
    def __init__(self, attention: torch.nn.Module, config: TinyConfig, weights: "_Weights") -> None:
        super().__init__()
        self.attention = attention
        self.up_proj = weights.matrix(config.intermediate_size, config.hidden_size)
        self.down_proj = weights.matrix(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        hidden = hidden + self.attention(_norm(hidden), positions)
        expanded = functional.silu(functional.linear(_norm(hidden), self.up_proj))
        return hidden + functional.linear(expanded, self.down_proj)


class _GroupedQueryAttention(torch.nn.Module):
    def __init__(
        self,
        config: TinyConfig,
        weights: "_Weights",
        attn_backend: type[AttentionBackend],
        prefix: str,
        kv_cache_dtype: str,
    ) -> None:
        super().__init__()
        self.sizes = [config.num_heads, config.num_kv_heads, config.num_kv_heads]
        self.head_size = config.head_size
        self.rope_theta = config.rope_theta
        self.qkv_proj = weights.matrix(sum(self.sizes) * config.head_size, config.hidden_size, _GAIN)
        self.o_proj = weights.matrix(config.hidden_size, config.num_heads * config.head_size, _GAIN)
        self.attn = Attention(
            config.num_heads,
            config.head_size,
            config.head_size**-0.5,
            config.num_kv_heads,
            per_layer_sliding_window=config.sliding_window,
            prefix=prefix,
            attn_backend=attn_backend,
            dtype=weights.dtype,
            kv_cache_dtype=kv_cache_dtype,
            device=weights.device,
        )

    def forward(self, hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        qkv = functional.linear(hidden, self.qkv_proj).view(len(hidden), -1, self.head_size)
        query, key, value = qkv.split(self.sizes, dim=1)
        query = _rotate(query, positions, self.rope_theta)
        key = _rotate(key, positions, self.rope_theta)
        return functional.linear(self.attn(query, key, value), self.o_proj)


class _LatentAttention(torch.nn.Module):
    def __init__(
        self,
        config: TinyConfig,
        weights: "_Weights",
        attn_backend: type[AttentionBackend],
        prefix: str,
        kv_cache_dtype: str,
    ) -> None:
        super().__init__()
        assert config.kv_lora_rank is not None
        num_heads, head_size = config.num_heads, config.head_size
        self.num_heads = num_heads
        self.head_size = head_size
        self.sizes = [
            head_size - config.qk_rope_head_dim,
            config.qk_rope_head_dim,
        ]  # of a key: from latent, shared
        self.rank = config.kv_lora_rank
        self.rope_theta = config.rope_theta
        self.is_mla = attn_backend.is_mla()
        self.q_proj = weights.matrix(num_heads * head_size, config.hidden_size, 2 * _GAIN)
        self.kv_a_proj = weights.matrix(self.rank + self.sizes[1], config.hidden_size)
        # Of each head first the part of its key, then its value, which has head_size numbers here.
        self.kv_b_proj = weights.matrix(num_heads * (self.sizes[0] + head_size), self.rank)
        self.o_proj = weights.matrix(config.hidden_size, num_heads * head_size, _GAIN)
        scale = head_size**-0.5
        self.attn: MLAAttention | Attention
        if self.is_mla:
            self.attn = MLAAttention(
                num_heads,
                scale,
                qk_nope_head_dim=self.sizes[0],
                qk_rope_head_dim=self.sizes[1],
                v_head_dim=head_size,
                kv_lora_rank=self.rank,
                kv_b_proj=self.kv_b_proj,
                prefix=prefix,
                attn_backend=attn_backend,
                kv_cache_dtype=kv_cache_dtype,
            )
        else:
            self.attn = Attention(
                num_heads,
                head_size,
                scale,
                prefix=prefix,
                attn_backend=attn_backend,
                dtype=weights.dtype,
                kv_cache_dtype=kv_cache_dtype,
                device=weights.device,
            )

    def forward(self, hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        num_tokens = len(hidden)
        q_nope, q_pe = (
            functional.linear(hidden, self.q_proj).view(num_tokens, self.num_heads, -1).split(self.sizes, -1)
        )
        query = torch.cat([q_nope, _rotate(q_pe, positions, self.rope_theta)], dim=-1)
        kv_c, k_pe = functional.linear(hidden, self.kv_a_proj).split([self.rank, self.sizes[1]], dim=-1)
        kv_c = _norm(kv_c)
        k_pe = _rotate(k_pe[:, None], positions, self.rope_theta)
        if self.is_mla:
            output = self.attn(query, kv_c, k_pe)
        else:
            kv = functional.linear(kv_c, self.kv_b_proj).view(num_tokens, self.num_heads, -1)
            k_nope, value = kv.split([self.sizes[0], self.head_size], dim=-1)
            key = torch.cat([k_nope, k_pe.expand(-1, self.num_heads, -1)], dim=-1)
            output = self.attn(query, key, value)
        return functional.linear(output, self.o_proj)


class _Weights:
    """Draws the model's matrices, one after another, on the CPU, so that they are the same on every device."""

    def __init__(self, seed: int, dtype: torch.dtype, device: torch.device) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype
        self.device = device

    def matrix(self, rows: int, columns: int, gain: float = 1.0) -> torch.nn.Parameter:
        numbers = torch.randn(rows, columns, generator=self.generator) * columns**-0.5 * gain
        return torch.nn.Parameter(numbers.to(self.device, self.dtype), requires_grad=False)


def _norm(hidden: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(hidden.float(), hidden.shape[-1:], eps=1e-6).to(hidden.dtype)


def _rotate(heads: torch.Tensor, positions: torch.Tensor, theta: float) -> torch.Tensor:
    """Rotary position embedding of [num_tokens, heads, size]: pairs (i, i + size / 2) turn with the position."""
    half = heads.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, device=heads.device) / half)
    angle = (positions[:, None].float() * frequency)[:, None, :]
    first, second = heads.float().chunk(2, dim=-1)
    turned = torch.cat(
        [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1
    )
    return turned.to(heads.dtype)
