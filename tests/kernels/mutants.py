"""Wrong kernels: each is ours with one place replaced, the way people really get it wrong.

`right` has to occur exactly once in its function, so that an edit of the kernels that moves it is noticed
(test_mutants.py). `misconceptions` are names from the autograder's checks: the same mistake in a learner's function.
"""

from collections.abc import Callable
from dataclasses import dataclass

ATTENTION = "tests/kernels/test_attention.py"
CASCADE = "tests/kernels/test_cascade.py"
DECODE = "tests/kernels/test_decode.py"
DECODE_LADDER = "tests/kernels/test_decode_ladder.py"
FEATURES = "tests/kernels/test_features.py"
HOPPER_DECODE = "tests/kernels/test_hopper_decode.py"
HOPPER_PREFILL = "tests/kernels/test_hopper_prefill.py"
KV_CACHE = "tests/kernels/test_kv_cache.py"
LATENT = "tests/kernels/test_latent.py"
HOPPER_LATENT = "tests/kernels/test_hopper_latent.py"
MANY_SPLITS = "tests/kernels/test_many_splits.py"
MERGE = "tests/kernels/test_merge.py"
SOFTMAX_TESTS = "tests/kernels/test_softmax.py"


@dataclass(frozen=True)
class Mutant:
    """file: in kernels/. tests: what pytest runs, likely killers first."""

    name: str
    file: str
    function: str
    right: str
    wrong: str
    tests: tuple[str, ...]
    misconceptions: tuple[str, ...] = ()
    needs_gpu: bool = False

    def apply(self, source: str) -> str:
        """The file's text with the mistake. Raises ValueError where `right` is not in the function exactly once."""
        head, found, rest = source.partition(f"def {self.function}(")
        body, end, others = rest.partition("\ndef ")
        if body.count(self.right) != 1:
            raise ValueError(
                f"mutant {self.name!r}: expected once in {self.function} of kernels/{self.file}, "
                f"found {body.count(self.right)} times: {self.right!r}"
            )
        return head + found + body.replace(self.right, self.wrong) + end + others


def _of(file: str, function: str, *tests: str) -> Callable[..., Mutant]:
    """mutant(name, right, wrong, *misconceptions) for one function."""

    def mutant(name: str, right: str, wrong: str, *misconceptions: str) -> Mutant:
        return Mutant(name, file, function, right, wrong, tests, misconceptions)

    return mutant


# The online softmax, in its two forms

_update = _of("softmax.py", "update_softmax", SOFTMAX_TESTS, DECODE_LADDER)
_scaled = _of("softmax.py", "update_scaled_softmax", SOFTMAX_TESTS, ATTENTION)
_start = _of("softmax.py", "start_softmax", SOFTMAX_TESTS, ATTENTION)
_sinks = _of("softmax.py", "start_softmax_at_sinks", SOFTMAX_TESTS, FEATURES)
_finish = _of("softmax.py", "finish_softmax", SOFTMAX_TESTS, ATTENTION)
SOFTMAX = (
    _update("acc not rescaled", "acc * rescale[:, None]", "acc", "acc-not-rescaled"),
    _update("sum not rescaled", "row_sum * rescale", "row_sum", "l-not-rescaled"),
    _update("nothing rescaled", "tl.exp2(row_max - new_max)", "tl.exp2(row_max - row_max)", "nothing-rescaled"),
    _update("rescaled upside down", "row_max - new_max)", "new_max - row_max)", "rescale-factor-upside-down"),
    _update("new terms rescaled too", "tl.sum(weights, axis=1)", "tl.sum(weights, axis=1) * rescale", "new-terms-rescaled-too"),
    _update("no maximum subtracted", "tl.maximum(row_max, tl.max(scores, axis=1))", "row_max * 0.0", "no-max-subtraction"),
    _update("maximum of this tile", "tl.maximum(row_max, tl.max(scores, axis=1))", "tl.max(scores, axis=1)",
            "maximum-of-this-tile-only", "nan-on-a-fully-masked-tile"),
    _update("one maximum for all rows", "tl.max(scores, axis=1))", "tl.max(tl.max(scores, axis=1), axis=0))",
            "one-maximum-for-all-rows"),
    _update("mean of the weights", "tl.sum(weights, axis=1)", "tl.sum(weights, axis=1) / scores.shape[1]", "mean-for-sum"),
    _update("state ignored", "acc * rescale[:, None]", "acc * 0.0", "state-ignored"),
    _scaled("acc not rescaled, scaled", "acc * rescale[:, None]", "acc", "acc-not-rescaled"),
    _scaled("sum not rescaled, scaled", "row_sum * rescale", "row_sum", "l-not-rescaled"),
    _scaled("maximum not scaled", "tl.max(scores, axis=1) * factor", "tl.max(scores, axis=1)"),
    _scaled("scale left out", "scores * factor - new_max[:, None]", "scores - new_max[:, None]"),
    _start("maximum starts at 0", "LOWEST", "0.0"),
    _start("maximum starts at -infinity", "LOWEST", 'float("-inf")', "nan-on-a-fully-masked-tile"),
    _sinks("sink without weight", "tl.exp2(sinks - row_max)", "tl.zeros_like(sinks)"),
    _sinks("sink ignored by the maximum", "tl.maximum(sinks, LOWEST)", "sinks * 0.0"),
    _finish("not divided", "return acc / divisor[:, None], lse", "return acc, lse", "finalize-does-not-divide"),
    _finish("divided by 0", "divisor = tl.where(empty, 1.0, row_sum)", "divisor = row_sum", "finalize-divides-by-zero"),
    _finish("lse in log2 units", "(row_max + tl.log2(divisor)) * LN_2", "row_max + tl.log2(divisor)"),
    _finish("lse without the maximum", "(row_max + tl.log2(divisor))", "tl.log2(divisor)"),
    _finish("lse of nothing is finite", 'tl.where(empty, float("-inf"), (row_max', "tl.where(empty, 0.0, (row_max"),
)  # fmt: skip

# From positions to memory

_slots = _of("paging.py", "find_slots", DECODE_LADDER, ATTENTION)
_tile = _of("paging.py", "load_tile", DECODE_LADDER, ATTENTION)
PAGING = (
    _slots("logical block as physical", "block.to(tl.int64), offset", "(position // BLOCK_SIZE).to(tl.int64), offset",
           "logical-block-as-physical"),
    _slots("blocks in a row", "block_table_row_ptr + position // BLOCK_SIZE, mask=mask, other=0)",
           "block_table_row_ptr + position * 0, mask=mask, other=0) + position // BLOCK_SIZE", "contiguous-blocks"),
    _slots("always the first slot", "offset = position % BLOCK_SIZE", "offset = position * 0"),
    _slots("offset counted backwards", "offset = position % BLOCK_SIZE", "offset = BLOCK_SIZE - 1 - position % BLOCK_SIZE"),
    _slots("32-bit offsets", "return block.to(tl.int64), offset.to(tl.int64)", "return block, offset", "slot-mapping-int32"),
    _tile("reads what nobody owns", "tile_mask = mask[:, None]", "tile_mask = (mask | True)[:, None]"),
    _tile("reads the next head", "tile_mask & (dim < HEAD_SIZE)[None, :]", "tile_mask & (dim >= 0)[None, :]"),
)  # fmt: skip

# What may happen to scores

_hide = _of("scores.py", "hide", ATTENTION, FEATURES)
_softcap = _of("scores.py", "softcap", FEATURES)
_alibi = _of("scores.py", "alibi", FEATURES)
SCORES = (
    _hide("does not see itself", "key_position[None, :] <= last", "key_position[None, :] < last"),
    _hide("sees one ahead", "key_position[None, :] <= last[:, None]", "key_position[None, :] <= last[:, None] + 1"),
    _hide("mask left out", "tl.where(visible, scores, float(\"-inf\"))", "scores"),
    _hide("masked with 0", 'float("-inf")', "0.0"),
    _hide("window one too short", "key_position[None, :] >= first", "key_position[None, :] > first"),
    _softcap("softcap overflows", "(1.0 - 2.0 / (tl.exp2(scores) + 1.0))", "((tl.exp2(scores) - 1.0) / (tl.exp2(scores) + 1.0))"),
    _softcap("softcap without its cap", "cap_log2 * ", "1.0 * "),
    _alibi("bias grows towards the past", "scores - slopes_log2", "scores + slopes_log2"),
    _alibi("distance from the start", "query_position[:, None] - key_position[None, :]", "key_position[None, :] + 0 * query_position[:, None]"),
)  # fmt: skip

# Decode: rungs one and two, then splits

_single = _of("single_query.py", "_single_query_kernel", DECODE_LADDER)
_gqa = _of("gqa_decode.py", "_gqa_decode_kernel", DECODE_LADDER)
_decode = _of("decode.py", "_paged_decode_kernel", DECODE, ATTENTION, FEATURES)
_count = _of("schedule.py", "count_splits", DECODE, ATTENTION)
_find = _of("schedule.py", "find_split", DECODE, ATTENTION)
DECODE_MUTANTS = (
    _single("kv head = head mod group", "head // NUM_QUERIES_PER_KV", "head % NUM_QUERIES_PER_KV"),
    _single("one token too few", "visible = position < seq_len", "visible = position < seq_len - 1", "seq-lens-without-new-tokens"),
    _single("one token too many", "visible = position < seq_len", "visible = position <= seq_len"),
    _single("one head: scale left out", "axis=1) * scale_log2", "axis=1)"),
    _gqa("heads side by side", "kv_head * NUM_QUERIES_PER_KV + row", "row * tl.num_programs(1) + kv_head"),
    _gqa("whole blocks", "seq_len = tl.load(seq_lens_ptr + request)",
         "seq_len = tl.cdiv(tl.load(seq_lens_ptr + request), BLOCK_SIZE) * BLOCK_SIZE", "seq-lens-in-whole-blocks"),
    _gqa("the first request's length", "tl.load(seq_lens_ptr + request)", "tl.load(seq_lens_ptr)", "seq-lens-of-the-longest"),
    _gqa("the first request's blocks", "block_table_ptr + request * stride_table_req", "block_table_ptr"),
    _gqa("value at the key's place", "value_ptr = value_cache_ptr + kv_head * stride_value_head", "value_ptr = key_cache_ptr + kv_head * stride_value_head"),
    _gqa("scores not masked", 'tl.where(visible[None, :], scores, float("-inf"))', "scores"),
    _decode("last tile ignored", "tl.cdiv(seq_len, TILE_SIZE)", "tl.maximum(seq_len // TILE_SIZE, 1)"),
    _decode("split runs on", "(split + 1) * num_tiles", "(split + 2) * num_tiles"),
    _decode("every split from the start", "first_tile + split * num_tiles", "first_tile + 0 * num_tiles"),
    _decode("decode: window one too long", "first = tl.maximum(seq_len - window, 0)", "first = tl.maximum(seq_len - window - 1, 0)"),
    _decode("heads of the neighbour", "head = kv_head * NUM_QUERIES_PER_KV + row", "head = (kv_head + 1) % NUM_KV_HEADS * NUM_QUERIES_PER_KV + row"),
    _decode("padding rows written", "in_group = row < NUM_QUERIES_PER_KV", "in_group = row < BLOCK_M"),
    _decode("split written to another place", "split_at = program.to(tl.int64)", "split_at = number.to(tl.int64)"),
    _decode("decode: slope in natural units", "mask=in_group, other=0.0) * _LOG2_E", "mask=in_group, other=0.0)"),
    _decode("decode: sink in every split", "sinks = tl.where(split == 0, sinks, float(\"-inf\"))", "sinks = sinks * 1.0"),
    _decode("decode: key scale forgotten", "factor *= tl.load(k_scale_ptr", "factor *= 1.0 + 0.0 * tl.load(k_scale_ptr"),
    _decode("decode: value scale forgotten", "output *= value_factor", "output *= 1.0"),
    _decode("decode: bias from the sequence's end", "(seq_len - 1), position)", "seq_len, position)"),
    _decode("decode: slots of this tile again", "next_position = position + TILE_SIZE", "next_position = position + 0"),
    _count("rest of the sequence lost", "(seq_len + split_size - 1) // split_size", "seq_len // split_size"),
    _count("nobody for an empty request", "tl.maximum((seq_len + split_size - 1) // split_size, 1)", "(seq_len + split_size - 1) // split_size"),
    _find("program of the request before", "(end <= program)", "(end < program)"),
    _find("number not counted from the request", "program - first_program", "program"),
    _find("kv heads forgotten", "split_size) * NUM_KV_HEADS", "split_size)"),
)  # fmt: skip

# Merging

_states = _of("merge.py", "_merge_attn_states_kernel", MERGE)
_splits = _of("merge.py", "_merge_splits_kernel", MANY_SPLITS, DECODE)
_parts = _of("merge.py", "merge_parts", MANY_SPLITS, DECODE)
MERGE_MUTANTS = (
    _states("states added as they are", "tl.exp2(row_max - new_max)", "tl.exp2(row_max - row_max)", "added-without-rescaling"),
    _states("merge: sum not rescaled", "row_sum * rescale", "row_sum", "l-not-rescaled"),
    _states("merge: acc not rescaled", "acc * rescale[:, None]", "acc", "acc-not-rescaled"),
    _states("maximum of the first", "tl.maximum(row_max, score)", "tl.where(row_max > LOWEST, row_max, score)", "maximum-of-the-first-side"),
    _states("maximum of the last", "tl.maximum(row_max, score)", "score", "maximum-of-the-second-side"),
    _states("two empty states", "start_softmax(NUM_ROWS, HEAD_SIZE_PADDED)",
            'start_softmax(NUM_ROWS, HEAD_SIZE_PADDED)\n    row_max -= float("inf")', "nan-on-two-empty-states"),
    _states("weights swapped", "weight = tl.exp2(score - new_max)", "weight = tl.exp2(new_max - score)", "factors-swapped"),
    _states("mean of the outputs", "weight = tl.exp2(score - new_max)", "weight = tl.where(seen, 1.0, 0.0)", "mean-of-the-outputs"),
    _states("winner takes all", "weight = tl.exp2(score - new_max)", "weight = tl.where(score == new_max, 1.0, 0.0)", "winner-takes-all"),
    _states("empty split loaded", "mask=seen[:, None] & in_head", "mask=in_range[:, None] & in_head"),
    _states("merge: divided by 0", "tl.where(empty, 1.0, row_sum)", "row_sum"),
    _states("natural lse as log2", 'float("-inf")) / LN_2', 'float("-inf"))'),
    _splits("split of another kv head", "split * NUM_KV_HEADS + kv_head", "split * NUM_KV_HEADS"),
    _splits("split of another head", "head % NUM_QUERIES_PER_KV", "0"),
    _parts("earlier parts not rescaled", "acc * rescale", "acc"),
    _splits("splits over 64 forgotten", "range(0, num_splits, SPLITS_AT_ONCE)", "range(0, SPLITS_AT_ONCE, SPLITS_AT_ONCE)"),
    _parts("parts averaged", "weight = tl.exp2(score - new_max[:, None])", "weight = tl.where(mask, 1.0, 0.0)", "softmax-of-each-tile-averaged"),
)  # fmt: skip

# Prefill

_request = _of("prefill.py", "_find_request", ATTENTION)
_prefill = _of("prefill.py", "_paged_prefill_kernel", ATTENTION, FEATURES)
_attend = _of("prefill.py", "_attend", ATTENTION, FEATURES)
_rows = _of("prefill.py", "_load_keys_or_values", ATTENTION, FEATURES)
PREFILL_MUTANTS = (
    _request("the request before", "first_block <= q_block", "first_block < q_block"),
    _request("blocks without rounding up", "// BLOCK_Q + middle", "// BLOCK_Q"),
    _prefill("queries at the start", "query_position = seq_len - num_queries + query_index", "query_position = query_index",
             "position-without-computed-tokens"),
    _prefill("positions one too early", "query_position = seq_len - num_queries + query_index",
             "query_position = seq_len - num_queries + query_index - 1", "position-one-too-early"),
    _prefill("queries of all requests from 0", "token = query_start.to(tl.int64) + query_index", "token = query_index.to(tl.int64)",
             "query-start-loc-of-seq-lens"),
    _prefill("heads before tokens", "first_query + row // NUM_QUERIES_PER_KV", "first_query + row % BLOCK_Q"),
    _prefill("diagonal not masked", "full_end = tile_first + 1", "full_end = tile_last + 1"),
    _prefill("window's edge not masked", "full_start = tile_last - sliding_window + 1", "full_start = tile_first - sliding_window + 1"),
    _prefill("window one too long", "first = query_position - sliding_window + 1", "first = query_position - sliding_window"),
    _prefill("window starts too late", "kv_start = kv_first // TILE_SIZE * TILE_SIZE", "kv_start = tl.cdiv(kv_first, TILE_SIZE) * TILE_SIZE"),
    _prefill("a whole tile too many", "tl.minimum(full_end, kv_end) // TILE_SIZE", "tl.cdiv(tl.minimum(full_end, kv_end), TILE_SIZE)"),
    _prefill("the window's edge taken for whole", "tl.cdiv(full_start, TILE_SIZE) * TILE_SIZE", "full_start // TILE_SIZE * TILE_SIZE"),
    _attend("the same keys again", "position + TILE_SIZE, kv_end", "position, kv_end"),
    _attend("not masked at the end", "if MASKED:", "if False:"),
    _rows("reads in front of the window, prefill", "((position >= kv_first) & (position < kv_end))", "(position < kv_end)"),
    _rows("reads what nobody owns, prefill", "(position >= kv_first) & (position < kv_end)", "position >= 0"),
    _rows("always the first slot, prefill", "(position % BLOCK_SIZE)", "(position * 0)"),
    _prefill("last key block ignored", "kv_end = tile_last + 1", "kv_end = tile_last"),
    _prefill("sink in every split", 'tl.where(split == 0, sinks, float("-inf"))', "sinks"),
    _prefill("sink in natural units", "other=0.0).to(tl.float32) * _LOG2_E", "other=0.0).to(tl.float32)"),
    _prefill("slope in natural units", "mask=row_mask, other=0.0) * _LOG2_E", "mask=row_mask, other=0.0)"),
    _prefill("key scale forgotten", "factor *= tl.load(k_scale_ptr", "factor *= 1.0 + 0.0 * tl.load(k_scale_ptr"),
    _prefill("value scale forgotten", "output *= value_factor", "output *= 1.0"),
    _prefill("the first head's scale", "k_scale_ptr + kv_head * stride_k_scale_head", "k_scale_ptr + 0 * stride_k_scale_head"),
)  # fmt: skip

# Prefill on Hopper: without a GPU in gluon_emulator.py, barriers and all

_hopper_tile = _of("hopper_prefill_tiles.py", "find_tile", HOPPER_PREFILL)
_hopper_reach = _of("hopper_prefill_tiles.py", "find_reach", HOPPER_PREFILL)
_hopper_scores = _of("hopper_prefill_consumer.py", "_shape_scores", HOPPER_PREFILL)
_hopper_softmax = _of("hopper_prefill_consumer.py", "_update_softmax", HOPPER_PREFILL)
_hopper_produce = _of("hopper_prefill_producer.py", "produce", HOPPER_PREFILL)
_hopper_clean = _of("hopper_prefill_consumer.py", "_clean_values", HOPPER_PREFILL)
HOPPER_MUTANTS = (
    _hopper_tile("hopper: tile of the request before", "// BLOCK_Q + middle <= slot", "// BLOCK_Q + middle < slot"),
    _hopper_tile("hopper: position without computed tokens", "position = seq_len - num_queries + first_query",
                 "position = first_query", "position-without-computed-tokens"),
    _hopper_tile("hopper: one head group twice", "section * section_groups + rest % groups", "section * section_groups"),
    _hopper_reach("hopper: last key tile ignored", "gl.cdiv(kv_end, TILE_SIZE)", "kv_end // TILE_SIZE"),
    _hopper_reach("hopper: window starts too late", "position - WINDOW + 1, 0) // TILE_SIZE", "position - WINDOW + 1 + TILE_SIZE, 0) // TILE_SIZE"),
    _hopper_scores("hopper: sees one ahead", "gl.expand_dims(position, 0) < gl.expand_dims(row_end, 1)",
                   "gl.expand_dims(position, 0) <= gl.expand_dims(row_end, 1)"),
    _hopper_scores("hopper: window one too short", "row_position - (WINDOW - 1)", "row_position - (WINDOW - 2)"),
    _hopper_softmax("hopper: sum not rescaled", "row_sum * rescale", "row_sum", "l-not-rescaled"),
    _hopper_softmax("hopper: maximum of this tile", "gl.maximum(row_max, gl.max(scores, axis=1) * scale)",
                    "gl.max(scores, axis=1) * scale", "maximum-of-this-tile-only"),
    _hopper_clean("hopper: values past the end not cleaned", "gl.expand_dims(rows < seq_len, 1)", "gl.expand_dims(rows >= 0, 1)"),
    _hopper_produce("hopper: a place without a ticket", "both_ends & (taken < num_tickets)", "both_ends"),
)  # fmt: skip

# Decode on Hopper, in the emulator too

_hopper_share = _of("hopper_decode_kernel.py", "_consume", HOPPER_DECODE)
_hopper_fetch = _of("hopper_decode_kernel.py", "_produce", HOPPER_DECODE)
_hopper_merge = _of("hopper_decode_merge.py", "_merge_shares_kernel", HOPPER_DECODE)
HOPPER_DECODE_MUTANTS = (
    _hopper_merge("hopper decode: the last part forgotten", "- first_share + 1", "- first_share"),
    _hopper_merge("hopper decode: another kv head's parts", "* NUM_KV_HEADS + kv_head\n", "* NUM_KV_HEADS\n"),
    _hopper_merge("hopper decode: shares of another length", "tl.cdiv(tl.sum(steps), NUM_SHARES)", "(tl.sum(steps) // NUM_SHARES + 1)"),
    _hopper_fetch("hopper decode: another kv head's keys", "gl.program_id(0) % NUM_KV_HEADS", "gl.program_id(0) * 0"),
    _hopper_share("hopper decode: a sink in every part", "if first_step == 0:  # a sink", "if first_step >= 0:  # a sink"),
    _hopper_share("hopper decode: values past the end kept", "(tile_start < first) | (tile_start + TILE_SIZE > seq_len)", "tile_start < first"),
    _hopper_share("hopper decode: one token too many", "tile_start + column < seq_len", "tile_start + column <= seq_len"),
    _hopper_share("hopper decode: output not rescaled", "acc = acc * gl.expand_dims(gl.convert_layout(rescale,",
                  "acc = acc * gl.expand_dims(gl.convert_layout(rescale * 0.0 + 1.0,", "acc-not-rescaled"),
    _hopper_share("hopper decode: parts change places", "gl.where(first_step == 0, 1, 0)", "gl.where(first_step == 0, 0, 1)"),
    _hopper_fetch("hopper decode: fetches before the window", "range(first_tile + first_step, first_tile + last_step)",
                  "range(first_step, last_step)"),
    _hopper_fetch("hopper decode: the first request's shares", "            request_start = step", "            request_start = request_start"),
    _hopper_merge("hopper decode: merged from the wrong slots", "(part == 0)", "(part != 0)"),
    _hopper_merge("hopper decode: merged for another request", "sequence // NUM_KV_HEADS", "sequence % NUM_KV_HEADS"),
)  # fmt: skip

# Latent attention, and a shared prefix

_latent = _of("latent.py", "_latent_decode_kernel", LATENT)
_hopper_latent_clean = _of("hopper_latent_kernel.py", "_clean", HOPPER_LATENT)
_hopper_latent_softmax = _of("hopper_latent_kernel.py", "_take_softmax", HOPPER_LATENT)
_hopper_latent_taken = _of("hopper_latent_kernel.py", "_take_published", HOPPER_LATENT)
_hopper_latent_finish = _of("hopper_latent_kernel.py", "_finish", HOPPER_LATENT)
_hopper_latent_left = _of("hopper_latent_kernel.py", "_consume_left", HOPPER_LATENT)
_hopper_latent_right = _of("hopper_latent_kernel.py", "_consume_right", HOPPER_LATENT)
_cascade = _of("cascade.py", "cascade_attention", CASCADE)
LATENT_MUTANTS = (
    _latent("rotary part left out", "scores += tl.dot(query_rest, tl.trans", "scores += 0.0 * tl.dot(query_rest, tl.trans"),
    _latent("rotary part from the latent's place", "tile_ptr + RANK", "tile_ptr"),
    _latent("cache scale only for keys", "value_factor *= kv_scale", "value_factor *= 1.0"),
    _latent("latent: splits overlap", "split_start = split * tiles_per_split", "split_start = 0 * tiles_per_split"),
    _latent("latent: rows not masked", "tl.where(in_split[None, :], scores, float(\"-inf\"))", "scores"),
    _latent("latent: the last tile's blocks for all", "tile_start + TILE_SIZE, split_end, BLOCK_SIZE", "tile_start, split_end, BLOCK_SIZE"),
    _latent("latent: block of heads forgotten", "tl.program_id(0) % NUM_HEAD_BLOCKS * BLOCK_H", "0"),
    _hopper_latent_clean("hopper latent: values past the end kept", "gl.expand_dims(position < end, 1)", "gl.expand_dims(position >= 0, 1)"),
    _hopper_latent_softmax("hopper latent: rows not masked", "tile_start + TILE_SIZE > end", "tile_start > end"),
    _hopper_latent_taken("hopper latent: output not rescaled", "_rescale(acc, rescale)", "_rescale(acc, rescale * 0.0 + 1.0)"),
    _hopper_latent_finish("hopper latent: own tiles' sum only", "shared_sums.index(0).load(ROW) + shared_sums.index(1).load(ROW)", "row_sum"),
    _hopper_latent_left("hopper latent: left half freed too early", "        acc = _rescale(acc, rescale)\n",
                        "        mbarrier.arrive(left_empty.index(mine), count=1)\n        acc = _rescale(acc, rescale)\n"),
    _hopper_latent_right("hopper latent: last odd tile forgotten", "if num_tiles % 2 == 1", "if num_tiles % 2 == 2"),
    _cascade("prefix counted twice", "block_table[:, num_shared:]", "block_table"),
    _cascade("causal within the prefix", "causal=False", "causal=True"),
    _cascade("sink in both parts", "replace(options, sinks=None)", "options"),
    _cascade("rest as long as the whole", "(seq_lens - common_prefix_len).clamp(min=0)", "seq_lens"),
)  # fmt: skip

# Writing the cache

_write = _of("kv_cache.py", "_reshape_and_cache_kernel", KV_CACHE)
KV_CACHE_MUTANTS = (
    _write("writes slot -1 too", "(slot >= 0)[:, None]", "((slot >= 0) | (token < num_tokens))[:, None]"),
    _write("value's place gets the key", "value = tl.load(value_ptr", "value = tl.load(key_ptr"),
    _write("32-bit slots", "slot_mapping_ptr + token, mask=token < num_tokens, other=-1)",
           "slot_mapping_ptr + token, mask=token < num_tokens, other=-1).to(tl.int32)", "slot-mapping-int32"),
    _write("offset from the token", "offset = slot % BLOCK_SIZE", "offset = token % BLOCK_SIZE", "offset-from-new-token-index"),
    _write("block and offset swapped", "block = slot // BLOCK_SIZE", "block = slot % BLOCK_SIZE"),
)  # fmt: skip

MUTANTS = (
    *SOFTMAX,
    *PAGING,
    *SCORES,
    *DECODE_MUTANTS,
    *MERGE_MUTANTS,
    *PREFILL_MUTANTS,
    *HOPPER_MUTANTS,
    *HOPPER_DECODE_MUTANTS,
    *LATENT_MUTANTS,
    *KV_CACHE_MUTANTS,
)
