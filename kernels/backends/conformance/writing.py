"""Checks of the cache's side: what is written, when, and what must stay as it was."""

import torch

from kernels.backends.conformance.setup import ConformanceError, Setup
from kernels.backends.conformance.trial import Trial


def write_before_read(setup: Setup) -> None:
    """A step's tokens are in the cache before anybody attends to them: the first step of a request is right."""
    trial = Trial(setup)
    trial.step_right([(trial.request(5), 5)])
    one = trial.request(2)
    trial.step_right([(one, 1)])
    trial.step_right([(one, 1)])


def slot_minus_one_is_not_written(setup: Setup) -> None:
    """Tokens with slot -1 leave the cache as it is, bit for bit, and the others are written all the same."""
    trial = Trial(setup)
    # Who writes them all the same writes slot 0, or counts from the end: nobody is to own these places.
    last = trial.layer.kv_cache.shape[_block_dim(trial)] - 1
    trial.free_blocks = [block for block in trial.free_blocks if 0 < block < last]
    written, skipped = trial.request(6), trial.request(6)
    batch = [(written, 6), (skipped, 6)]
    common, _ = trial.metadata(batch)
    common.slot_mapping[6:] = -1
    before = _bits(trial.layer.kv_cache).clone()
    output = trial.run(trial.inputs(batch), common, trial.builder.build(0, common))
    step = trial.advance([(written, 6)], output, common, None)
    trial.expect_right(step)
    _expect_unchanged(trial, before, set(written.blocks), "with slot -1 for every other token")


def reading_writes_nothing(setup: Setup) -> None:
    """Attending leaves the cache as it is, and gives the same when it is done again."""
    trial = Trial(setup)
    requests = [trial.request(setup.block_size + 2), trial.request(4)]
    batch = [(requests[0], setup.block_size + 1), (requests[1], 3)]
    trial.step_right(batch)
    # Whoever cleaned them in passing would do so again.
    for block in trial.free_blocks:
        trial.layer.kv_cache.select(_block_dim(trial), block).fill_(float("nan"))
    before = _bits(trial.layer.kv_cache).clone()
    for request, count in batch:
        request.num_computed -= count
    common, _ = trial.metadata(batch)
    common.slot_mapping.fill_(-1)
    output = trial.run(trial.inputs(batch), common, trial.builder.build(0, common))
    trial.expect_right(trial.advance(batch, output, common, None))
    _expect_unchanged(trial, before, set(), "with slot -1 for every token")


def inputs_are_not_mutated(setup: Setup) -> None:
    """Query, key and value are the model's, block table and lengths the engine's: a backend only reads them."""
    trial = Trial(setup)
    size = setup.block_size
    requests = [trial.request(size + 5), trial.request(3)]
    trial.step([(requests[0], size), (requests[1], 2)])
    for batch in ([(requests[0], 3), (requests[1], 0)], [(requests[0], 1), (requests[1], 1)]):
        common, attn_metadata = trial.metadata(batch)
        inputs = trial.inputs(batch)
        tensors = dict(zip(("query", "key", "value"), inputs, strict=True))
        for name in ("block_table_tensor", "seq_lens", "query_start_loc", "slot_mapping"):
            tensors[name] = getattr(common, name)
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        output = trial.run(inputs, common, attn_metadata)
        for name, tensor in tensors.items():
            if not torch.equal(tensor, before[name]):
                index = (tensor != before[name]).nonzero()[0].tolist()
                at = tuple(index)
                raise ConformanceError(
                    f"{name}{index} was {before[name][at].item()} before the step and is {tensor[at].item()} after it"
                )
        trial.expect_right(trial.advance(batch, output, common, attn_metadata))


def padding_is_ignored(setup: Setup) -> None:
    """The layer's tensors may have more rows than the batch has tokens: they are not read, and nothing is written."""
    trial = Trial(setup)
    requests = [trial.request(setup.block_size + 3), trial.request(6)]
    trial.step_right([(requests[0], setup.block_size), (requests[1], 5)], num_padding=3)
    trial.step_right([(request, 1) for request in requests], num_padding=6)
    trial.step_right([(requests[0], 2)])


def _block_dim(trial: Trial) -> int:
    setup = trial.setup
    return setup.backend.get_kv_cache_block_dim(
        setup.block_size, setup.num_kv_heads, setup.head_size, setup.kv_cache_dtype
    )


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Numbers that NaN is equal to itself in."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(kinds[tensor.element_size()])


def _expect_unchanged(trial: Trial, before: torch.Tensor, but: set[int], when: str) -> None:
    """No block of the cache but these differs from what it was."""
    block_dim = _block_dim(trial)
    after = _bits(trial.layer.kv_cache)
    for block in range(before.shape[block_dim]):
        changed = int((before.select(block_dim, block) != after.select(block_dim, block)).sum())
        if changed and block not in but:
            raise ConformanceError(
                f"{when}, block {block} was expected to stay as it was; {changed} of its "
                f"{before.select(block_dim, block).numel()} numbers changed"
            )
