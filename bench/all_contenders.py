"""Everyone who is measured, in the order of the tables."""

from bench.contender import Contender
from bench.ladder import LADDER
from bench.peers import PEERS

CONTENDERS = (*LADDER, *PEERS)


def choose_contenders(words: list[str]) -> list[Contender]:
    """Those whose name contains any of the words; all without words. Raises ValueError where there is none."""
    chosen = [one for one in CONTENDERS if not words or any(word in one.name for word in words)]
    if not chosen:
        names = ", ".join(one.name for one in CONTENDERS)
        raise ValueError(
            f"contenders: expected part of a contender's name ({names}), got {' '.join(words)!r}"
        )
    return chosen
