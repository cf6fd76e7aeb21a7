"""Checks of the output: whatever the batch is, wherever its blocks lie, whatever lies between them."""

from collections.abc import Callable

from kernels.backends.conformance.setup import ConformanceError, Setup
from kernels.backends.conformance.trial import Trial


def prefill_of_any_length(setup: Setup) -> None:
    """Prompts of 1 token, and of one less, as many and one more than a block, ragged in one batch."""
    trial = Trial(setup)
    size = setup.block_size
    trial.step_right(
        [(trial.request(length), length) for length in (1, size - 1 or 1, size, size + 1, 2 * size)]
    )


def decode_across_blocks(setup: Setup) -> None:
    """One token a request, of sequences that end before, at and after the end of a block."""
    trial = Trial(setup)
    size = setup.block_size
    lengths = (1, size - 1 or 1, size, 2 * size + 1)
    requests = [trial.request(length + 2) for length in lengths]
    trial.step_right(list(zip(requests, lengths, strict=True)))
    for _ in range(2):
        trial.step_right([(request, 1) for request in requests])


def mixed_batch(setup: Setup) -> None:
    """Decodes, a prefill and a chunk of a prefill in one step."""
    trial = Trial(setup)
    size = setup.block_size
    first, chunk, last = trial.request(size + 5), trial.request(2 * size + 3), trial.request(4)
    trial.step_right([(first, size + 4), (chunk, size - 2 or 1), (last, 3)])
    trial.step_right([(first, 1), (trial.request(size + 1), size + 1), (chunk, size + 3), (last, 1)])


def chunked_equals_one_shot(setup: Setup) -> None:
    """A prompt in several steps gives what it gives in one: a chunk's queries see all that came before."""
    size = setup.block_size
    length = 2 * size + 5
    for chunks in ([length], [1, 2, size, 1, size + 1]):
        trial = Trial(setup)
        request, other = trial.request(length), trial.request(length)
        for index, count in enumerate(chunks):
            with _context(f"as chunks {chunks}, chunk {index}"):
                trial.step_right([(request, count), (other, min(1, index))])


def long_sequences(setup: Setup) -> None:
    """Sequences of more tokens than a kernel takes at once, in a decode and in a chunk."""
    long, other = 70, 37
    trial = Trial(setup, num_blocks=-(-long // setup.block_size) + -(-other // setup.block_size) + 1)
    requests = [trial.request(long), trial.request(other)]
    trial.step_right([(requests[0], long - 3), (requests[1], 1)])
    trial.step_right([(requests[0], 2), (requests[1], other - 2)])
    trial.step_right([(request, 1) for request in requests])


def scatter_invariance(setup: Setup) -> None:
    """The same tokens in other blocks give the same output: in a row, backwards, scattered."""
    size = setup.block_size
    length = 2 * size + 2
    orders: dict[str, Callable[[list[int]], list[int]]] = {
        "in a row": lambda blocks: blocks,
        "backwards": lambda blocks: blocks[::-1],
        "scattered": lambda blocks: blocks[3::5] + blocks[1::5] + blocks[::5] + blocks[4::5] + blocks[2::5],
    }
    for name, order in orders.items():
        trial = Trial(setup)
        blocks = order(sorted(trial.free_blocks))
        requests = [trial.request(length, blocks[:3]), trial.request(length, blocks[3:6])]
        with _context(f"with blocks {name}"):
            trial.step_right([(request, length - 1) for request in requests])
            trial.step_right([(request, 1) for request in requests])


def what_nobody_owns_is_not_read(setup: Setup) -> None:
    """Tails of blocks and unused blocks hold NaN, or large numbers, and no output shows it."""
    size = setup.block_size
    for filling in (float("nan"), 1000.0):
        trial = Trial(setup, filling=filling)
        requests = [trial.request(size + 2), trial.request(3), trial.request(2 * size)]
        with _context(f"with {filling} in every slot that nobody owns"):
            trial.step_right([(requests[0], size + 1), (requests[1], 2), (requests[2], 2 * size - 1)])
            trial.step_right([(request, 1) for request in requests])


def reused_blocks(setup: Setup) -> None:
    """A block that another request used before holds its tokens still: a shorter one does not see them."""
    trial = Trial(setup)
    size = setup.block_size
    before = trial.request(2 * size)
    trial.step_right([(before, 2 * size)])
    after = trial.request(size + 3, before.blocks[::-1])
    trial.step_right([(after, 2)])
    trial.step_right([(after, size)])
    trial.step_right([(after, 1)])


def shared_blocks(setup: Setup) -> None:
    """Two requests begin with the same blocks and go on in their own, whether or not the builder is told of it."""
    trial = Trial(setup)
    size = setup.block_size
    first = trial.request(2 * size + 3)
    trial.step_right([(first, 2 * size + 1)])
    second = trial.request(2 * size + 5, prefix=first, num_shared_blocks=2)
    trial.step_right([(first, 1), (second, 4)])
    with _context(f"with a common prefix of {2 * size}"):
        trial.step_right([(second, 1), (first, 1)], common_prefix_len=2 * size)


def blocks_change_after_preemption(setup: Setup) -> None:
    """A request that lost its blocks is computed again in others: what was remembered of it is out of date."""
    trial = Trial(setup)
    size = setup.block_size
    pair = [trial.request(size + 4), trial.request(size + 4)]
    trial.step_right([(request, size + 2) for request in pair])
    trial.step_right([(request, 1) for request in pair])
    thief = trial.request(size + 4, pair[0].blocks)
    trial.step_right([(thief, size + 3)])
    for request in pair:
        request.restart([trial.free_blocks.pop() for _ in range(2)])
    with _context("computed again, in the same batches as before"):
        trial.step_right([(request, size + 2) for request in pair])
        trial.step_right([(request, 1) for request in pair])
    trial.step_right([(thief, 1), (pair[0], 1)])


def requests_of_length_zero(setup: Setup) -> None:
    """A request without tokens, as padding has them, gives zeros if it has a query row, and disturbs nobody."""
    trial = Trial(setup)
    size = setup.block_size
    empty = [trial.request(0) for _ in range(3)]
    one, two = trial.request(size + 3), trial.request(6)
    with _context("without query tokens of their own"):
        trial.step_right([(empty[0], 0), (one, size), (empty[1], 0), (two, 4), (empty[2], 0)])
    with _context("in a decode, with a query token each"):
        common, attn_metadata = trial.metadata([(empty[0], 1), (one, 1), (two, 1), (empty[1], 1)])
        batch = [(empty[0], 1), (one, 1), (two, 1), (empty[1], 1)]
        output = trial.run(trial.inputs(batch), common, attn_metadata)
        trial.expect_right(trial.advance(batch, output, common, attn_metadata))
        for request in empty:
            request.num_computed = 0
    with _context("among nobody else"):
        trial.step_right([(empty[0], 0), (one, 1), (empty[1], 0)])


def large_scores(setup: Setup) -> None:
    """Scores of some hundred do not overflow: the exponential is taken of differences from the largest."""
    trial = Trial(setup)
    request = trial.request(setup.block_size + 4, magnitude=60.0)
    trial.step_right([(request, setup.block_size + 2)])
    trial.step_right([(request, 1)])


class _context:
    """Say in which part of a check it was."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ConformanceError):
            raise ConformanceError(f"{self.where}: {error}") from None
