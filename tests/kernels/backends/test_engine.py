"""A model of random weights says the same on every backend: with room and without, in chunks, with shared prefixes."""

import functools

import pytest
import torch

from kernels import reference
from kernels.backends import AttentionBackendEnum, get_device_capability
from kernels.backends.dense_torch import DenseTorchBackend, DenseTorchImpl
from kernels.backends.engine import Engine
from kernels.backends.forward_context import set_forward_context
from kernels.backends.layer import attention_layers
from kernels.backends.tiny_model import TinyConfig, TinyModel
from tests.kernels.backends.faults import FAULTS
from tests.kernels.backends.faulty import TorchMLA, dense

SYSTEM = [5, 9, 13, 2, 40, 41, 42, 43]
PROMPTS = [[*SYSTEM, 1, 2, 3], [*SYSTEM, 7], [3, 1, 4, 1, 5], [*SYSTEM[:4], 50], [*SYSTEM, 1, 2, 3, 4, 6]]
NUM_NEW = 6
BLOCK_SIZE = 4

# What each is to show is asserted in the test.
ROOMY = {"num_blocks": 40, "max_num_batched_tokens": 64}
CHUNKED = {"num_blocks": 40, "max_num_batched_tokens": 6}
TIGHT = {"num_blocks": 7, "max_num_batched_tokens": 10, "max_num_seqs": 4}

ORDINARY, LATENT, WINDOW = TinyConfig(), TinyConfig(kv_lora_rank=32), TinyConfig(sliding_window=6)


class Uncached(DenseTorchImpl):
    """Attends to the keys it is handed: right where a step has the whole sequence, and no cache is needed."""

    def forward(self, layer, query, key, value, kv_cache, attn_metadata, output):
        output.copy_(
            reference.dense_attention(query, key, value, self.scale, sliding_window=self.sliding_window)
        )
        return output

    def do_kv_cache_update(self, *args):
        pass


@functools.cache
def without_a_cache(config, seed=0):
    """The truth: for each new token the whole sequence is computed again. Returns (tokens, smallest lead)."""
    model = TinyModel(config, dense("UncachedBackend", Uncached), device="cpu", seed=seed)
    layers = attention_layers(model)
    answers, smallest_lead = [], float("inf")
    for prompt in PROMPTS:
        tokens = list(prompt)
        for _ in range(NUM_NEW):
            with set_forward_context(dict.fromkeys(layers), layers):
                hidden = model(torch.tensor(tokens), torch.arange(len(tokens)))
            best = torch.topk(model.compute_logits(hidden[-1:])[0], 2)
            smallest_lead = min(smallest_lead, (best.values[0] - best.values[1]).item())
            tokens.append(int(best.indices[0]))
        answers.append(tokens[len(prompt) :])
    return answers, smallest_lead


def run(config, backend, options, device, *, prompts=PROMPTS, num_new=NUM_NEW, block_size=BLOCK_SIZE, **more):
    engine = Engine(TinyModel(config, backend, device=device, **more), block_size=block_size, **options)
    return engine, engine.generate(prompts, num_new)


@pytest.mark.parametrize("config", [ORDINARY, LATENT, WINDOW], ids=["ordinary", "latent", "window"])
@pytest.mark.parametrize("options", [ROOMY, CHUNKED, TIGHT], ids=["roomy", "chunked", "tight"])
@pytest.mark.parametrize("name", ["DENSE_TORCH", "PAGED_TORCH"])
def test_torch_says_what_is_said_without_a_cache(name, options, config, device):
    expected, lead = without_a_cache(config)
    assert lead > 1e-3, "another seed: rounding could decide"
    engine, answers = run(config, AttentionBackendEnum[name].get_class(), options, device)
    assert answers == expected
    assert engine.smallest_lead == pytest.approx(lead, abs=1e-4)
    if options is TIGHT:
        assert engine.num_preemptions > 0
    if options is ROOMY:
        assert engine.num_cached_tokens > 0


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(ROOMY, id="roomy", marks=pytest.mark.gpu),
        pytest.param(CHUNKED, id="chunked", marks=pytest.mark.gpu),
        # Chunks, preemption and shared prefixes in one: the interpreter takes seconds.
        pytest.param(TIGHT, id="tight"),
    ],
)
@pytest.mark.parametrize(("config", "name"), [(ORDINARY, "TRITON_ATTN"), (LATENT, "TRITON_MLA")])
def test_triton_says_the_same(config, name, options, device):
    num_new = NUM_NEW if device.type == "cuda" else 4
    backend = AttentionBackendEnum[name].get_class()
    engine, answers = run(config, backend, options, device, num_new=num_new)
    assert answers == [answer[:num_new] for answer in without_a_cache(config)[0]]
    if options is TIGHT:
        assert engine.num_preemptions > 0
        assert engine.num_cached_tokens > 0


@pytest.mark.parametrize("options", [ROOMY, CHUNKED, TIGHT], ids=["roomy", "chunked", "tight"])
def test_a_backend_for_latents_from_outside_says_the_same(options, device):
    assert run(LATENT, TorchMLA, options, device)[1] == without_a_cache(LATENT)[0]


@pytest.mark.gpu
def test_hopper_says_what_torch_says_in_half_precision(device):
    """Where no token is chosen by less than rounding."""
    if get_device_capability(device)[0] != 9:
        pytest.skip("needs a Hopper GPU")
    config = TinyConfig(head_size=64)
    for seed in range(60):
        model_options = {"dtype": torch.float16, "seed": seed}
        engine, expected = run(config, DenseTorchBackend, ROOMY, device, **model_options)
        if engine.smallest_lead > 0.04:
            break
    else:
        pytest.fail("no seed with a lead that rounding cannot turn")
    backend = AttentionBackendEnum.HOPPER_ATTN.get_class()
    for options in (ROOMY, CHUNKED, TIGHT):
        assert run(config, backend, options, device, block_size=8, **model_options)[1] == expected


def test_fp8_says_the_same_on_both_that_have_it(device):
    """And not by the same scores as without fp8: a cache of one byte a number is another model."""
    few = {"prompts": PROMPTS[:2], "num_new": 3}
    paged, triton = (AttentionBackendEnum[name].get_class() for name in ("PAGED_TORCH", "TRITON_ATTN"))
    engine, expected = run(ORDINARY, paged, ROOMY, device, **few, kv_cache_dtype="fp8")
    assert engine.smallest_lead > 1e-3
    assert run(ORDINARY, triton, ROOMY, device, **few, kv_cache_dtype="fp8")[1] == expected
    plain, _ = run(ORDINARY, paged, ROOMY, device, **few)
    assert engine.smallest_lead != pytest.approx(plain.smallest_lead, rel=1e-2)


def test_the_answers_are_not_all_alike():
    """Answers that hang on nothing would agree on any backend."""
    for config in (ORDINARY, LATENT, WINDOW):
        answers, _ = without_a_cache(config)
        assert len({tuple(answer) for answer in answers}) == len(answers)
        assert len({token for answer in answers for token in answer}) > 8


WRONG = [
    "ContiguousBlocksBackend",
    "TopLeftMaskBackend",
    "WrongHeadMapBackend",
    "KeepsMetadataOfAddressesBackend",
]


@pytest.mark.parametrize("name", WRONG)
def test_a_faulty_backend_says_something_else(name, device):
    (fault,) = [fault for fault in FAULTS if fault.name == name]
    assert run(ORDINARY, fault.backend, TIGHT, device)[1] != without_a_cache(ORDINARY)[0]


class TestTheLoop:
    def engine(self, **options):
        defaults = {"num_blocks": 8, "block_size": BLOCK_SIZE, "max_num_batched_tokens": 6}
        return Engine(TinyModel(ORDINARY, DenseTorchBackend, device="cpu"), **(defaults | options))

    def test_a_step_gives_tokens_to_those_whose_prompt_is_done(self):
        engine = self.engine()
        first, second = engine.add_request([1, 2, 3, 4], 2), engine.add_request([5, 6, 7, 8], 2)
        assert set(engine.step()) == {first}  # 4 tokens, and 2 of the second's
        assert set(engine.step()) == {first, second}
        assert set(engine.step()) == {second}
        assert engine.step() == {}
        assert engine.pool.num_free == 8

    def test_the_last_to_come_is_preempted_and_comes_back(self):
        engine = self.engine(num_blocks=4, max_num_batched_tokens=32)
        first, second = engine.add_request([1] * 7, 6), engine.add_request([2] * 7, 6)
        engine.step()
        engine.step()
        assert [request.number for request in engine.running] == [first, second]
        engine.step()  # the first needs a third block
        assert [request.number for request in engine.running] == [first]
        assert [request.number for request in engine.waiting] == [second]
        while engine.running or engine.waiting:
            engine.step()
        alone = self.engine().generate([[1] * 7, [2] * 7], 6)
        assert [engine.finished[first], engine.finished[second]] == alone
        assert engine.num_preemptions == 1

    def test_a_prefix_is_computed_once(self):
        engine = self.engine(num_blocks=16, max_num_batched_tokens=32)
        once = engine.generate([[*SYSTEM, 1]], 2)
        assert engine.num_cached_tokens == 0
        assert engine.generate([[*SYSTEM, 1]], 2) == once
        assert engine.num_cached_tokens == 8

    @pytest.mark.parametrize(
        ("prompt", "max_new_tokens", "message"),
        [
            ([], 1, "prompt: expected tokens from 0 to 63, at least one, got"),
            ([64], 1, "prompt: expected tokens from 0 to 63"),
            ([1], 0, "max_new_tokens: expected at least 1, got 0"),
            ([1] * 30, 3, "expected up to 32 tokens together, the cache's room, got 30 and 3"),
        ],
    )
    def test_a_request_that_could_never_run_is_refused(self, prompt, max_new_tokens, message):
        with pytest.raises(ValueError, match=message):
            self.engine().add_request(prompt, max_new_tokens)

    @pytest.mark.parametrize("name", ["max_num_batched_tokens", "max_num_seqs"])
    def test_a_loop_that_could_never_run_is_refused(self, name):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
            self.engine(**{name: 0})

    def test_blocks_that_the_backend_does_not_take_are_refused(self):
        model = TinyModel(ORDINARY, DenseTorchBackend, device="cpu")
        model.attn_backend = AttentionBackendEnum.HOPPER_ATTN.get_class()
        with pytest.raises(ValueError, match="block_size: HOPPER_ATTN does not support 12"):
            Engine(model, block_size=12)

    def test_a_model_that_is_told_nothing_asks_the_selector(self, device):
        assert TinyModel(ORDINARY, device="cpu").attn_backend.get_name() == "PAGED_TORCH"
        assert TinyModel(LATENT, device=device).attn_backend.get_name() == "TRITON_MLA"
