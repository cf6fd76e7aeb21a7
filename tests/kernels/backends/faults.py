"""Backends that are wrong in one way each, and the checks that have to say so, with a piece of what they say."""

from dataclasses import dataclass

from kernels.backends import AttentionBackend
from kernels.backends.paged_torch import PagedTorchBackend
from kernels.backends.triton_attn import TritonAttentionBackend
from tests.kernels.backends import faulty
from tests.kernels.backends.faulty import dense, swap


@dataclass(frozen=True)
class Fault:
    """notices: check by name, and a piece of the message with which it has to fail. only_on: "cpu" or "gpu"."""

    backend: type[AttentionBackend]
    notices: dict[str, str]
    only_on: str = ""

    @property
    def name(self) -> str:
        return self.backend.__name__


FAULTS = [
    Fault(faulty.NoRoomForValues, {"cache_shape": "expected room for"}),
    Fault(faulty.AsManyBlocksAsItLikes, {"cache_shape": "the number of blocks, whatever it is"}),
    Fault(faulty.AcceptsEverything, {"description": "a list of reasons against a cache of the other kind"}),
    Fault(faulty.KnowsNoImpl, {"description": "get_impl_cls: expected a subclass of AttentionImpl"}),
    Fault(
        swap("DropsThisStepBackend", PagedTorchBackend, builder=faulty.DropsThisStep),
        {"builder_metadata": "seq_lens", "decode_across_blocks": "", "write_before_read": ""},
    ),
    Fault(
        dense("AddsToSeqLensBackend", builder=faulty.AddsToSeqLens),
        {"builder_metadata": "build changed the batch's seq_lens"},
    ),
    Fault(
        dense("KeepsBlockTablesBackend", builder=faulty.KeepsBlockTables),
        {"blocks_change_after_preemption": "computed again, in the same batches as before: request 0"},
    ),
    Fault(
        dense("KeepsMetadataOfAddressesBackend", builder=faulty.KeepsMetadataOfAddresses),
        {"decode_across_blocks": "request", "blocks_change_after_preemption": "request"},
    ),
    Fault(
        dense("ReadsWholeBlocksBackend", builder=faulty.ReadsWholeBlocks),
        {
            "what_nobody_owns_is_not_read": "with nan in every slot that nobody owns",
            "reused_blocks": "request 1",
        },
    ),
    Fault(
        dense("ContiguousBlocksBackend", builder=faulty.ContiguousBlocks),
        {"scatter_invariance": "with blocks backwards", "blocks_change_after_preemption": ""},
    ),
    Fault(
        dense("SortsBlockTablesBackend", builder=faulty.SortsBlockTables),
        {"scatter_invariance": "with blocks backwards"},
    ),
    Fault(
        dense("OneOwnerForABlockBackend", builder=faulty.OneOwnerForABlock), {"shared_blocks": "request 1"}
    ),
    Fault(dense("CountsPaddingBackend", builder=faulty.CountsPadding), {"padding_is_ignored": ""}),
    Fault(
        dense("DecodesWhenTheFirstDoesBackend", builder=faulty.DecodesWhenTheFirstDoes),
        {"mixed_batch": "request", "prefill_of_any_length": "request 1"},
    ),
    Fault(
        dense(
            "WritesAfterReadingBackend",
            faulty.WritesAfterReading,
            faulty.KnowsSlots,
            forward_includes_kv_cache_update=True,
        ),
        {"write_before_read": "got nan", "decode_across_blocks": "got nan"},
    ),
    Fault(dense("NobodyWrites", forward_includes_kv_cache_update=True), {"write_before_read": "got nan"}),
    Fault(
        dense("WritesSlotMinusOneBackend", faulty.WritesSlotMinusOne),
        {"slot_minus_one_is_not_written": "was expected to stay as it was"},
    ),
    Fault(
        dense("WritesSlotZeroForPaddingBackend", faulty.WritesSlotZeroForPadding),
        {"slot_minus_one_is_not_written": "block 0 was expected to stay as it was"},
    ),
    Fault(
        dense("WritesHeadsFirstBackend", faulty.WritesHeadsFirst),
        {"write_before_read": "request", "prefill_of_any_length": "request"},
    ),
    Fault(
        dense("CleansTailsBackend", faulty.CleansTails),
        {"reading_writes_nothing": "", "slot_minus_one_is_not_written": "stay as it was"},
    ),
    Fault(
        dense("ScalesTheQueryBackend", faulty.ScalesTheQuery),
        {"inputs_are_not_mutated": "query[0, 0, 0] was"},
    ),
    Fault(
        dense("TopLeftMaskBackend", faulty.TopLeftMask),
        {"chunked_equals_one_shot": "chunk 1", "decode_across_blocks": "request"},
    ),
    Fault(
        dense("WrongHeadMapBackend", faulty.WrongHeadMap),
        {"head_counts": "with 8 heads and 2 kv heads", "prefill_of_any_length": "head 1"},
    ),
    Fault(dense("NoMaximumBackend", faulty.NoMaximum), {"large_scores": "got nan"}),
    Fault(
        dense("EmptyGivesNaNBackend", faulty.EmptyGivesNaN),
        {"requests_of_length_zero": "expected 0, got nan"},
    ),
    Fault(dense("EmptyCrashesBackend", faulty.EmptyCrashes), {"requests_of_length_zero": "raised at"}),
    Fault(
        dense("OwnScaleBackend", faulty.OwnScale), {"prefill_of_any_length": "request 1", "large_scores": ""}
    ),
    Fault(dense("WindowOfOneMoreBackend", faulty.WindowOfOneMore), {"sliding_window": "with a window of 1"}),
    Fault(
        dense("LeavesOutBackend", faulty.LeavesOut),
        {"softcap_and_alibi": "with logits_soft_cap", "sinks": "request"},
    ),
    Fault(
        dense("OwnKeysInPrefillBackend", faulty.OwnKeysInPrefill),
        {"chunked_equals_one_shot": "chunk 1", "shared_blocks": "request 1", "mixed_batch": "request 1"},
    ),
    Fault(dense("LastTileOnlyBackend", faulty.LastTileOnly), {"long_sequences": "the last of 70"}),
    Fault(
        dense("LeavesThePrefixToOthersBackend", builder=faulty.LeavesThePrefixToOthers),
        {"shared_blocks": "with a common prefix of 8: request 1"},
    ),
    Fault(
        dense("PowersOfTwoOnlyBackend", faulty.PowersOfTwoOnly),
        {"head_sizes": "with heads of 48 numbers: request 0"},
    ),
    Fault(dense("HalfPrecisionBackend", faulty.HalfPrecision), {"prefill_of_any_length": "is allowed"}),
    Fault(
        swap("ForgetsScales", PagedTorchBackend, faulty.ForgetsScalesWhenReading), {"fp8_cache": "request 0"}
    ),
    Fault(
        swap("OneScaleForBothBackend", PagedTorchBackend, faulty.OneScaleForBoth), {"fp8_cache": "request 0"}
    ),
    Fault(
        swap("ForgetsPositionsBackend", faulty.TorchMLA, faulty.ForgetsPositions),
        {"prefill_of_any_length": "request 1", "head_counts": "with 1 heads and 1 kv heads"},
    ),
    Fault(
        swap("WritesPositionsFirstBackend", faulty.TorchMLA, faulty.WritesPositionsFirst),
        {"write_before_read": "request 0"},
    ),
    Fault(
        swap("EveryTokenSeesAllBackend", faulty.TorchMLA, builder=faulty.EveryTokenSeesAll),
        {"prefill_of_any_length": "request 1", "chunked_equals_one_shot": "chunk"},
    ),
    Fault(
        swap("CopiesForTheGraphBackend", TritonAttentionBackend, builder=faulty.CopiesForTheGraph),
        {"cuda_graph": "by a CUDA graph"},
        only_on="gpu",
    ),
]
