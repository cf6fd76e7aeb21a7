"""Question 10b, the bonus: ways to split that run nothing in parallel, and right ones."""

from autograder.misconceptions import paged_split
from autograder.misconceptions.paged_decode_triton import paged_online_attention_triton
from autograder.registry import Misconception, RightVariant

SOLUTION = {**paged_split.SOLUTION, "paged_online_attention_triton": paged_online_attention_triton}
_WANTED = ("num-splits-ignored", "no-kernel", "mean-of-the-splits", "rest-left-out", "tail-attended")
MISCONCEPTIONS = tuple(
    Misconception(found.name, found.message, found.parts)
    for name in _WANTED
    for found in paged_split.MISCONCEPTIONS
    if found.name == name
)
RIGHT_VARIANTS = tuple(RightVariant(found.name, found.parts) for found in paged_split.RIGHT_VARIANTS)
