"""Question 8, second part: attention functions that keep the contract of a paged cache, and some that break it.

They are text, because in grading they are made where the learner's code runs: what is tested on a function needs the function.
"""

from __future__ import annotations

from dataclasses import dataclass

TEMPLATE = """
import math
import torch


def attend(query, key_cache, value_cache, block_table, seq_lens, scale):
    output = torch.zeros_like(query)
    block_size, group = key_cache.shape[1], query.shape[1] // key_cache.shape[2]
    for request in range(len(query)):
        seq_len = int(seq_lens[request])
        if seq_len == 0:
            continue
        num_blocks = -(-seq_len // block_size)
        blocks = block_table[request, :num_blocks].long()
        held = seq_len
        k = key_cache[blocks].flatten(0, 1)[:held]
        v = value_cache[blocks].flatten(0, 1)[:held]
        k, v = (part.float().repeat_interleave(group, dim=1) for part in (k, v))
        scores = torch.einsum("hd,khd->hk", query[request].float(), k) * scale
        weights = torch.softmax(scores, dim=-1)
        output[request] = torch.einsum("hk,khd->hd", weights, v).to(query.dtype)
    return output
"""


@dataclass(frozen=True)
class Function:
    """does: what it does, in a clause. breaks: the answers that are right for it, the best first; none for a right one."""

    does: str
    breaks: tuple[str, ...]
    source: str


def _edited(does: str, breaks: tuple[str, ...], *lines: tuple[str, str]) -> Function:
    source = TEMPLATE
    for right, wrong in lines:
        if source.count(right) != 1:
            raise ValueError(f"{does}: expected exactly once: {right!r}")
        source = source.replace(right, wrong)
    return Function(does, breaks, source)


_BLOCKS = "blocks = block_table[request, :num_blocks].long()"
_K, _V = "k = key_cache[blocks]", "v = value_cache[blocks]"

RIGHT = _edited("attends as it should", ())
RIGHT_BASE_2 = _edited(
    "attends as it should, in base 2 and with other rounding",
    (),
    ("k) * scale", "k) * (scale * math.log2(math.e))"),
    (
        "weights = torch.softmax(scores, dim=-1)",
        "weights = torch.exp2(scores - scores.amax(-1, keepdim=True)); weights = weights / weights.sum(-1, keepdim=True)",
    ),
)
RIGHT_BACKWARDS = _edited(
    "attends as it should, from the last token to the first",
    (),
    ("flatten(0, 1)[:held]\n        v", "flatten(0, 1)[:held].flip(0)\n        v"),
    (_V + ".flatten(0, 1)[:held]", _V + ".flatten(0, 1)[:held].flip(0)"),
)
READS_THE_TAIL = _edited(
    "attends to the last block's tail",
    ("tail",),
    ("held = seq_len", "held = num_blocks * block_size"),
)
NAN_TIMES_ZERO = _edited(
    "masks the tail's scores and multiplies its values by 0",
    ("tail",),
    ("held = seq_len", "held = num_blocks * block_size"),
    ("k) * scale", "k) * scale\n        scores[:, seq_len:] = -math.inf"),
)
ONE_TOO_MANY = _edited(
    "attends to one slot past the end",
    ("tail",),
    ("held = seq_len", "held = seq_len + 1"),
)
CONTIGUOUS = _edited(
    "takes the blocks to lie one after the other behind the first",
    ("scatter", "ownership"),
    (_BLOCKS, "blocks = (block_table[request, 0] + torch.arange(num_blocks)).long() % len(key_cache)"),
)
IDENTITY = _edited(
    "takes logical block j to be physical block j",
    ("scatter", "ownership"),
    (_BLOCKS, "blocks = torch.arange(num_blocks)"),
)
SORTED = _edited(
    "sorts the block table",
    ("order",),
    (_BLOCKS, "blocks = block_table[request, :num_blocks].long().sort().values"),
)
REVERSED = _edited(
    "reads the block table from its end",
    ("order", "tail"),
    (_BLOCKS, "blocks = block_table[request, :num_blocks].long().flip(0)"),
)
CACHED_BY_ID = _edited(
    "remembers what it once found under a block's number",
    ("content",),
    ("import torch\n", "import torch\n\nKNOWN = {}\n"),
    (_K, 'k = torch.stack([KNOWN.setdefault(("k", b), key_cache[b].clone()) for b in blocks.tolist()])'),
    (_V, 'v = torch.stack([KNOWN.setdefault(("v", b), value_cache[b].clone()) for b in blocks.tolist()])'),
)
CACHED_BY_TABLE = _edited(
    "remembers its answer by the block table",
    ("content",),
    ("import torch\n", "import torch\n\nKNOWN = {}\n"),
    (
        "        num_blocks = ",
        "        name = (request, seq_len, tuple(block_table[request].tolist()))\n"
        "        if name in KNOWN and KNOWN[name].shape == output[request].shape:\n"
        "            output[request] = KNOWN[name]\n"
        "            continue\n"
        "        num_blocks = ",
    ),
    ("    return output", "        KNOWN[name] = output[request].clone()\n    return output"),
)
LONGEST_FOR_ALL = _edited(
    "reads as many blocks for each request as the longest has",
    ("ownership", "tail"),
    ("seq_len = int(seq_lens[request])", "seq_len = int(seq_lens.max())"),
)
FIRST_ROW = _edited(
    "reads the first request's row of the table for every request",
    ("ownership", "scatter"),
    (_BLOCKS, "blocks = block_table[0, :num_blocks].long()"),
)
CLEANS_IN_PLACE = _edited(
    "replaces NaN in the cache in place",
    ("inputs",),
    (
        "    output = torch.zeros_like(query)\n",
        "    output = torch.zeros_like(query)\n    value_cache.nan_to_num_()\n",
    ),
)
SCALES_IN_PLACE = _edited(
    "scales the query in place",
    ("inputs",),
    ("    output = torch.zeros_like(query)\n", "    output = torch.zeros_like(query)\n    query *= scale\n"),
    ("k) * scale", "k)"),
)

VISIBLE = (
    RIGHT,
    READS_THE_TAIL,
    NAN_TIMES_ZERO,
    CONTIGUOUS,
    SORTED,
    CACHED_BY_ID,
    LONGEST_FOR_ALL,
    SCALES_IN_PLACE,
    RIGHT_BASE_2,
)
HIDDEN = (
    ONE_TOO_MANY,
    IDENTITY,
    REVERSED,
    CACHED_BY_TABLE,
    FIRST_ROW,
    CLEANS_IN_PLACE,
    RIGHT_BACKWARDS,
)
