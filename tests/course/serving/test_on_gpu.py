"""Timing kernels as steps need them: what can be seen without a GPU, and on one the whole."""

import pytest
import torch

from course import serving
from course.serving import batch, on_gpu
from course.serving.simulate import Step

CPU = torch.device("cpu")


def test_steps_that_are_alike_are_one_batch():
    assert batch.bucket(Step([130, 120, 140], [])) == Step([256] * 3, [])
    assert batch.bucket(Step([100] * 30, [])) == batch.bucket(Step([1, 128] * 17, [])) == Step([128] * 32, [])
    assert batch.bucket(Step([], [(100, 900), (20, 20)])) == Step([], [(128, 128), (128, 1024)])
    assert batch.bucket(Step([], [])) == Step([], [])


@pytest.mark.parametrize(
    "step", [Step([300, 10], [(40, 200), (128, 128)]), Step([5], []), Step([], [(3, 3)])]
)
def test_a_batch_is_a_legal_one(step):
    for made in (batch.make(step, CPU, torch.float32), batch.make(batch.bucket(step), CPU, torch.float32)):
        lengths, starts = made.common.seq_lens.tolist(), made.common.query_start_loc.tolist()
        assert starts == [0, *(sum(n for n, _ in made.requests[: i + 1]) for i in range(len(made.requests)))]
        assert lengths == [length for _, length in made.requests]
        assert made.query.shape == made.output.shape == (starts[-1], 32, 128)
        used = [
            block
            for row, length in zip(made.common.block_table_tensor.tolist(), lengths, strict=True)
            for block in row[: -(-length // 16)]
        ]
        assert sorted(used) == list(range(made.num_blocks))


def test_our_kernels_run_through_their_backend():
    """In torch on this machine: what comes out is attention over the cache, so not what was there before."""
    made = batch.make(Step([20, 33], [(5, 40)]), CPU, torch.float32)
    made.output.fill_(torch.nan)
    output = on_gpu.through_backend("PAGED_TORCH", made)()
    assert output.shape == (7, 32, 128)
    assert output.isfinite().all()
    assert 0.05 < output.std() < 1  # a mean of unit normal values


def test_who_is_unknown_or_not_installed_is_named(monkeypatch):
    made = batch.make(Step([20], []), CPU, torch.float32)

    def missing(made):
        raise ImportError("No module named 'flashinfer'")

    monkeypatch.setitem(on_gpu.PEERS, "FlashInfer", missing)
    with pytest.raises(
        RuntimeError, match=r"FlashInfer is not installed here \(No module named 'flashinfer'\)"
    ):
        on_gpu.prepare("FlashInfer", made)
    with pytest.raises(ValueError, match="contender: expected one of ours"):
        on_gpu.prepare("mine", made)


@pytest.mark.gpu
def test_a_plan_runs_on_this_gpu(plan):
    plan["hypothesis"]["than"] = "ours, Triton tier"
    plan["contenders"] = {"ours": {}, "ours, Triton tier": {}}
    result = serving.run(plan, source="gpu")
    assert result.source == "gpu"
    assert "REPLAY" not in str(result)
    assert all(0.2 < ratio < 20 for ratio in result.ratios())
