"""Parts of backends that are wrong in one way each, as people write them; faults.py makes backends of them.

Most are DENSE_TORCH's with a line changed, so that they run anywhere and are wrong in nothing else.
"""

from dataclasses import replace
from typing import Any, ClassVar

import torch

from kernels import reference
from kernels.backends import AttentionBackend, AttentionCGSupport
from kernels.backends.dense_torch import DenseTorchBackend, DenseTorchImpl, DenseTorchMetadataBuilder
from kernels.backends.paged_torch import PagedTorchImpl, PagedTorchMetadataBuilder
from kernels.backends.triton_attn import TritonAttentionMetadataBuilder
from kernels.backends.triton_mla import TritonMLABackend, TritonMLAImpl, TritonMLAMetadataBuilder


def swap(
    name: str, base: type[AttentionBackend], impl: Any = None, builder: Any = None, **members: Any
) -> Any:
    """A backend like `base` with another impl, builder or method."""
    if impl is not None:
        members["get_impl_cls"] = staticmethod(lambda: impl)
    if builder is not None:
        members["get_builder_cls"] = staticmethod(lambda: builder)
    return type(name, (base,), members)


def dense(name: str, impl: Any = None, builder: Any = None, **members: Any) -> Any:
    return swap(name, DenseTorchBackend, impl, builder, **members)


# What it says about itself


class NoRoomForValues(DenseTorchBackend):
    @staticmethod
    def get_kv_cache_shape(num_blocks, block_size, num_kv_heads, head_size, cache_dtype_str="auto"):
        return (num_blocks, block_size, num_kv_heads, head_size)


class AsManyBlocksAsItLikes(DenseTorchBackend):
    @staticmethod
    def get_kv_cache_shape(num_blocks, block_size, num_kv_heads, head_size, cache_dtype_str="auto"):
        return (2, 1024, block_size, num_kv_heads, head_size)


class AcceptsEverything(DenseTorchBackend):
    @classmethod
    def validate_configuration(cls, *args, **kwargs):
        return []


class KnowsNoImpl(DenseTorchBackend):
    @staticmethod
    def get_impl_cls():
        return DenseTorchMetadataBuilder


# The builder


class DropsThisStep(PagedTorchMetadataBuilder):
    """seq_lens without the tokens that this step writes."""

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        common = common_attn_metadata
        made = super().build(common_prefix_len, common, fast_build)
        return replace(made, seq_lens=common.seq_lens - common.query_start_loc.diff())


class AddsToSeqLens(DenseTorchMetadataBuilder):
    """Works in the engine's own tensors."""

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        made = super().build(common_prefix_len, common_attn_metadata, fast_build)
        common_attn_metadata.seq_lens += 1
        return made


class KeepsBlockTables(DenseTorchMetadataBuilder):
    """Remembers the slots of a batch by its lengths: a preempted request comes back in other blocks."""

    def __init__(self, *args):
        super().__init__(*args)
        self.known: dict[Any, Any] = {}

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        key = tuple(common_attn_metadata.seq_lens.tolist())
        if key not in self.known:
            self.known[key] = super().build(common_prefix_len, common_attn_metadata, fast_build)
        return self.known[key]


class KeepsMetadataOfAddresses(DenseTorchMetadataBuilder):
    """Remembers by where a tensor lies; the next step's numbers lie there too."""

    def __init__(self, *args):
        super().__init__(*args)
        self.known: dict[Any, Any] = {}

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        key = (common_attn_metadata.seq_lens.data_ptr(), common_attn_metadata.num_actual_tokens)
        if key not in self.known:
            self.known[key] = super().build(common_prefix_len, common_attn_metadata, fast_build)
        return self.known[key]


class ReadsWholeBlocks(DenseTorchMetadataBuilder):
    """Rounds lengths up to blocks: the tail of the last block is attended to."""

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        size = self.kv_cache_spec.block_size
        common = replace(common_attn_metadata, seq_lens=-(-common_attn_metadata.seq_lens // size) * size)
        return super().build(common_prefix_len, common, fast_build)


class ContiguousBlocks(DenseTorchMetadataBuilder):
    """Takes a request's blocks to follow its first."""

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        table = common_attn_metadata.block_table_tensor
        in_a_row = table[:, :1] + torch.arange(table.shape[1], dtype=torch.int32, device=table.device)
        common = replace(common_attn_metadata, block_table_tensor=in_a_row % 24)
        return super().build(common_prefix_len, common, fast_build)


class SortsBlockTables(DenseTorchMetadataBuilder):
    """Sorts each request's blocks, "for locality"."""

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        common = common_attn_metadata
        table = common.block_table_tensor.clone()
        for request, seq_len in enumerate(common.seq_lens.tolist()):
            owned = -(-seq_len // self.kv_cache_spec.block_size)
            table[request, :owned] = table[request, :owned].sort().values
        return super().build(common_prefix_len, replace(common, block_table_tensor=table), fast_build)


class OneOwnerForABlock(DenseTorchMetadataBuilder):
    """Gives a block to the first request that has it; the second finds another in its place."""

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        table = common_attn_metadata.block_table_tensor.clone()
        seen: set[int] = set()
        for row in table:
            for entry, block in enumerate(row.tolist()):
                if block in seen:
                    row[entry] = row[-1]
            seen.update(row.tolist())
        common = replace(common_attn_metadata, block_table_tensor=table)
        return super().build(common_prefix_len, common, fast_build)


class CountsPadding(DenseTorchMetadataBuilder):
    """Takes all rows of the layer's tensors for tokens: the last request gets the padding."""

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        made = super().build(common_prefix_len, common_attn_metadata, fast_build)
        padding = len(common_attn_metadata.slot_mapping) - made.num_actual_tokens
        starts = [*made.query_start_loc[:-1], made.query_start_loc[-1] + padding]
        return replace(made, query_start_loc=starts)


class DecodesWhenTheFirstDoes(DenseTorchMetadataBuilder):
    """Judges a batch by its first request: one token, so all have one."""

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        made = super().build(common_prefix_len, common_attn_metadata, fast_build)
        if made.query_start_loc[1:2] == [1]:
            return replace(made, query_start_loc=list(range(len(made.query_start_loc))))
        return made


class LeavesThePrefixToOthers(DenseTorchMetadataBuilder):
    """Takes the common prefix off, for a cascade that nobody computes."""

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        made = super().build(common_prefix_len, common_attn_metadata, fast_build)
        return replace(made, slots=[slots[common_prefix_len:] for slots in made.slots])


# Writing the cache


class WritesAfterReading(DenseTorchImpl):
    def forward(self, layer, query, key, value, kv_cache, attn_metadata, output):
        super().forward(layer, query, key, value, kv_cache, attn_metadata, output)
        self.do_kv_cache_update(layer, key, value, kv_cache, attn_metadata.slot_mapping)
        return output


class KnowsSlots(DenseTorchMetadataBuilder):
    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        made = super().build(common_prefix_len, common_attn_metadata, fast_build)
        made.slot_mapping = common_attn_metadata.slot_mapping  # type: ignore[attr-defined]
        return made


class WritesSlotMinusOne(DenseTorchImpl):
    """-1 as an index is the last slot."""

    def do_kv_cache_update(self, layer, key, value, kv_cache, slot_mapping):
        for cache, tokens in zip(kv_cache, (key, value), strict=True):
            cache.flatten(0, 1)[slot_mapping] = tokens[: len(slot_mapping)]


class WritesSlotZeroForPadding(DenseTorchImpl):
    """Clamps slots, so that padding lands in block 0."""

    def do_kv_cache_update(self, layer, key, value, kv_cache, slot_mapping):
        super().do_kv_cache_update(layer, key, value, kv_cache, slot_mapping.clamp(min=0))


class WritesHeadsFirst(DenseTorchImpl):
    """Writes as [block, kv head, slot] what is read as [block, slot, kv head]: HND for NHD."""

    def do_kv_cache_update(self, layer, key, value, kv_cache, slot_mapping):
        _, num_blocks, block_size, num_kv_heads, head_size = kv_cache.shape
        turned = kv_cache.view(2, num_blocks, num_kv_heads, block_size, head_size).transpose(2, 3)
        super().do_kv_cache_update(layer, key, value, turned, slot_mapping)


class CleansTails(DenseTorchImpl):
    """Replaces NaN in the cache by zero before it reads."""

    def forward(self, layer, query, key, value, kv_cache, attn_metadata, output):
        kv_cache.nan_to_num_(0.0)
        return super().forward(layer, query, key, value, kv_cache, attn_metadata, output)


class ScalesTheQuery(DenseTorchImpl):
    """Multiplies the model's own tensor."""

    def forward(self, layer, query, key, value, kv_cache, attn_metadata, output):
        query *= 1.0 + 2.0**-8
        result = super().forward(layer, query, key, value, kv_cache, attn_metadata, output)
        return result


# Attending


class Attends(DenseTorchImpl):
    """DENSE_TORCH's attention written out, for faults to change a line of."""

    def attend(self, query, key, value, causal):
        query, key, value = (tensor.double() for tensor in (query, key, value))
        n_q, n_kv = len(query), len(key)
        distance = torch.arange(n_q, device=query.device)[:, None] + self.shift(n_q, n_kv)
        distance = distance - torch.arange(n_kv, device=query.device)
        hidden = distance < 0
        if self.sliding_window is not None:
            hidden |= distance >= self.sliding_window
        head = self.kv_heads(torch.arange(self.num_heads, device=query.device))
        scores = torch.einsum("qhd,khd->qhk", query, key[:, head]) * self.scale
        weights = self.softmax(scores.masked_fill(hidden[:, None], float("-inf")))
        result = torch.einsum("qhk,khd->qhd", weights, value[:, head])
        return result.to(self.numbers)

    def forward(self, layer, query, key, value, kv_cache, attn_metadata, output):
        self.numbers = query.dtype
        return super().forward(layer, query, key, value, kv_cache, attn_metadata, output)

    def shift(self, n_q, n_kv):
        return n_kv - n_q

    def kv_heads(self, head):
        return head // (self.num_heads // self.num_kv_heads)

    def softmax(self, scores):
        return torch.softmax(scores, dim=-1).nan_to_num(0.0)


class TopLeftMask(Attends):
    def shift(self, n_q, n_kv):
        return 0


class WrongHeadMap(Attends):
    def kv_heads(self, head):
        return head % self.num_kv_heads


class NoMaximum(Attends):
    def softmax(self, scores):
        exponentials = torch.exp(scores.float())
        return (exponentials / exponentials.sum(dim=-1, keepdim=True)).double()


class EmptyGivesNaN(DenseTorchImpl):
    def attend(self, query, key, value, causal):
        if len(key) == 0:
            return query * float("nan")
        return super().attend(query, key, value, causal)


class EmptyCrashes(DenseTorchImpl):
    def attend(self, query, key, value, causal):
        key.amax()
        return super().attend(query, key, value, causal)


class EmptyIsSkipped(DenseTorchImpl):
    """Goes on to the next request, and leaves in the output what was there."""

    def forward(self, layer, query, key, value, kv_cache, attn_metadata, output):
        kept = output.clone()
        super().forward(layer, query, key, value, kv_cache, attn_metadata, output)
        for request, slots in enumerate(attn_metadata.slots):
            if len(slots) == 0:
                tokens = slice(*attn_metadata.query_start_loc[request : request + 2])
                output[tokens] = kept[tokens]
        return output


class Unwritten(AttentionBackend):
    """The stubs that a learner starts with."""

    supported_dtypes: ClassVar[list[torch.dtype]] = [torch.float32]

    @staticmethod
    def get_name():
        raise NotImplementedError

    @staticmethod
    def get_impl_cls():
        raise NotImplementedError

    @staticmethod
    def get_builder_cls():
        raise NotImplementedError

    @staticmethod
    def get_kv_cache_shape(num_blocks, block_size, num_kv_heads, head_size, cache_dtype_str="auto"):
        raise NotImplementedError


class SaysNothingIsSupported(DenseTorchImpl):
    """Refuses every layer, as if it were an option."""

    def __init__(self, *args, **kwargs):
        raise NotImplementedError("no layer is supported")


class ReturnsInsteadOfWriting(DenseTorchImpl):
    """Makes an output of its own; the layer's stays as it was."""

    def forward(self, layer, query, key, value, kv_cache, attn_metadata, output):
        return super().forward(layer, query, key, value, kv_cache, attn_metadata, torch.zeros_like(output))


class OwnScale(DenseTorchImpl):
    def __init__(self, num_heads, head_size, scale, *args, **kwargs):
        super().__init__(num_heads, head_size, head_size**-0.5, *args, **kwargs)


class WindowOfOneMore(DenseTorchImpl):
    """vLLM's kernels count the keys before the query's own; the layer's window counts it too."""

    def __init__(
        self, num_heads, head_size, scale, num_kv_heads=None, alibi_slopes=None, window=None, *args, **kwargs
    ):
        window = None if window is None else window + 1
        super().__init__(num_heads, head_size, scale, num_kv_heads, alibi_slopes, window, *args, **kwargs)


class LeavesOut(DenseTorchImpl):
    """Takes softcap, ALiBi and sinks, and says nothing."""

    def attend(self, query, key, value, causal):
        return reference.dense_attention(query, key, value, self.scale, sliding_window=self.sliding_window)


class OwnKeysInPrefill(DenseTorchImpl):
    """A prefill attends to its own step's keys: right for a prompt in one piece."""

    def attend(self, query, key, value, causal):
        if len(query) > 1:
            key, value = key[-len(query) :], value[-len(query) :]
        return super().attend(query, key, value, causal)


class LastTileOnly(DenseTorchImpl):
    """Keeps the last 64 keys, as a loop does that forgets what it had."""

    def attend(self, query, key, value, causal):
        if len(query) == 1:
            key, value = key[-64:], value[-64:]
        return super().attend(query, key, value, causal)


class PowersOfTwoOnly(DenseTorchImpl):
    """Multiplies as many numbers of a head as the largest power of two in it."""

    def attend(self, query, key, value, causal):
        size = 1 << (query.shape[-1].bit_length() - 1)
        query, key = query.clone(), key.clone()
        query[..., size:] = 0
        return super().attend(query, key, value, causal)


class HalfPrecision(DenseTorchImpl):
    def attend(self, query, key, value, causal):
        half = (tensor.to(torch.bfloat16) for tensor in (query, key, value))
        return super().attend(*half, causal).to(query.dtype)


class ForgetsScalesWhenReading(PagedTorchImpl):
    def forward(self, layer, *args, **kwargs):
        plain = torch.nn.Module()
        plain._k_scale = plain._v_scale = torch.ones_like(layer._k_scale)
        return super().forward(plain, *args, **kwargs)


class OneScaleForBoth(PagedTorchImpl):
    """Reads values with the keys' scale."""

    def forward(self, layer, *args, **kwargs):
        plain = torch.nn.Module()
        plain._k_scale = plain._v_scale = layer._k_scale
        return super().forward(plain, *args, **kwargs)


# Latents, in torch, so that they run fast anywhere


class TorchMLAImpl(TritonMLAImpl):
    def forward_mqa(self, q, kv_c_and_k_pe_cache, attn_metadata, layer):
        output = q.new_empty(len(q), self.num_heads, self.kv_lora_rank)
        count = attn_metadata.num_actual_tokens
        reference.latent_decode(
            self.absorbed(q[:count]),
            kv_c_and_k_pe_cache,
            attn_metadata.block_table,
            attn_metadata.seq_lens,
            self.scale,
            kv_lora_rank=self.kv_lora_rank,
            kv_scale=layer._k_scale if self.kv_cache_dtype == "fp8" else None,
            out=output[:count],
        )
        return output

    def absorbed(self, q):
        return q

    def do_kv_cache_update(self, kv_c_normed, k_pe, kv_cache, slot_mapping, kv_cache_dtype, k_scale):
        count = len(slot_mapping)
        row = torch.cat([kv_c_normed[:count], k_pe[:count].flatten(1)], dim=-1)[:, None]
        cache = kv_cache[:, :, None]
        scale = k_scale if kv_cache_dtype == "fp8" else None
        reference.reshape_and_cache(row, row, cache, cache, slot_mapping, k_scale=scale, v_scale=scale)


class TorchMLAMetadataBuilder(TritonMLAMetadataBuilder):
    # The reference reads lengths on the host.
    _cudagraph_support: ClassVar[AttentionCGSupport] = AttentionCGSupport.NEVER


TorchMLA = swap(
    "TorchMLA",
    TritonMLABackend,
    TorchMLAImpl,
    TorchMLAMetadataBuilder,
    get_name=staticmethod(lambda: "TORCH_MLA"),
)


class ForgetsPositions(TorchMLAImpl):
    """Leaves the position's part out of the scores."""

    def absorbed(self, q):
        return torch.cat([q[..., : self.kv_lora_rank], torch.zeros_like(q[..., self.kv_lora_rank :])], dim=-1)


class WritesPositionsFirst(TorchMLAImpl):
    def do_kv_cache_update(self, kv_c_normed, k_pe, kv_cache, slot_mapping, kv_cache_dtype, k_scale):
        row = torch.cat([k_pe[:, 0], kv_c_normed], dim=-1)
        rank = self.kv_lora_rank
        super().do_kv_cache_update(
            row[:, :rank], row[:, None, rank:], kv_cache, slot_mapping, kv_cache_dtype, k_scale
        )


class EveryTokenSeesAll(TorchMLAMetadataBuilder):
    """A prefill's tokens all get the request's length: they see what comes after them."""

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        made = super().build(common_prefix_len, common_attn_metadata, fast_build)
        lengths = common_attn_metadata.query_start_loc.diff().long()
        return replace(made, seq_lens=common_attn_metadata.seq_lens.repeat_interleave(lengths))


class CopiesForTheGraph(TritonAttentionMetadataBuilder):
    """Copies the block table: a captured graph never sees the next step's."""

    _cudagraph_support: ClassVar[AttentionCGSupport] = AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        made = super().build(common_prefix_len, common_attn_metadata, fast_build)
        return replace(made, block_table=made.block_table.clone(), seq_lens=made.seq_lens.clone())
