"""The division of labour: what the layer does, what it asks the forward context for, and what it leaves to the impl."""

import subprocess
import sys
from contextlib import suppress

import pytest
import torch

from kernels import reference
from kernels.backends import (
    Attention,
    AttentionBackendEnum,
    MLAAttention,
    attention_layers,
    get_forward_context,
    layer,
    set_forward_context,
    unified_kv_cache_update,
)
from kernels.backends.batch import StepTensors
from kernels.backends.dense_torch import DenseTorchBackend, DenseTorchImpl, DenseTorchMetadataBuilder
from kernels.backends.engine import Engine
from kernels.backends.forward_context import is_forward_context_available
from kernels.backends.tiny_model import TinyConfig, TinyModel
from tests.kernels.backends.faulty import KnowsSlots, TorchMLA, dense

CPU = torch.device("cpu")
NAME = "model.layers.0.attn"


class WritesWithinForward(DenseTorchImpl):
    """As impls do whose backend says forward_includes_kv_cache_update."""

    def forward(self, layer, query, key, value, kv_cache, attn_metadata, output):
        self.do_kv_cache_update(layer, key, value, kv_cache, attn_metadata.slot_mapping)
        return super().forward(layer, query, key, value, kv_cache, attn_metadata, output)


FORWARD_WRITES = dense(
    "ForwardWrites", WritesWithinForward, KnowsSlots, forward_includes_kv_cache_update=True
)


def one_step(backend, calls=None):
    """A layer, and a step of 3 tokens ready to run: (layer, (query, key, value), context's arguments)."""
    attn = Attention(4, 8, 0.5, 2, prefix=NAME, attn_backend=backend, device="cpu")
    spec = attn.get_kv_cache_spec(4)
    attn.kv_cache = torch.full(backend.get_kv_cache_shape(3, 4, 2, 8), float("nan"))
    common = StepTensors(2, 8, 2, 4, CPU).fill([[2]], [3], [3])
    metadata = backend.get_builder_cls()(spec, [NAME], CPU).build(0, common)
    generator = torch.Generator().manual_seed(0)
    tensors = tuple(torch.randn(3, heads * 8, generator=generator) for heads in (4, 2, 2))
    return attn, tensors, ({NAME: metadata}, {NAME: attn}), {NAME: common.slot_mapping}


@pytest.mark.parametrize("backend", [DenseTorchBackend, FORWARD_WRITES])
def test_the_layer_attends_whoever_writes_the_cache(backend):
    attn, (query, key, value), context, slots = one_step(backend)
    with set_forward_context(*context, slot_mapping=slots):
        output = attn(query, key, value)
    expected = reference.dense_attention(query.view(3, 4, 8), key.view(3, 2, 8), value.view(3, 2, 8), 0.5)
    torch.testing.assert_close(output, expected.flatten(1))


@pytest.mark.parametrize(("backend", "calls"), [(DenseTorchBackend, 1), (FORWARD_WRITES, 0)])
def test_the_layer_writes_only_for_impls_whose_forward_does_not(backend, calls, monkeypatch):
    attn, tensors, context, slots = one_step(backend)
    seen = []
    monkeypatch.setattr(
        layer, "unified_kv_cache_update", lambda *a: (seen.append(a[2]), unified_kv_cache_update(*a))
    )
    with set_forward_context(*context, slot_mapping=slots):
        attn(*tensors)
    assert seen == [NAME] * calls


def test_without_slots_nothing_is_written():
    attn, (_, key, value), context, _ = one_step(DenseTorchBackend)
    with set_forward_context(*context):
        unified_kv_cache_update(key.view(3, 2, 8), value.view(3, 2, 8), NAME)
    assert attn.kv_cache.isnan().all()


def test_heads_may_have_a_dimension_of_their_own():
    attn, (query, key, value), context, slots = one_step(DenseTorchBackend)
    with set_forward_context(*context, slot_mapping=slots):
        flat = attn(query, key, value)
        split = attn(query.view(3, 4, 8), key.view(3, 2, 8), value.view(3, 2, 8))
    assert torch.equal(flat, split)


def test_a_step_of_no_tokens():
    attn, tensors, context, _ = one_step(DenseTorchBackend)
    common = StepTensors(2, 8, 2, 4, CPU).fill([], [], [])
    metadata = attn.attn_backend.get_builder_cls()(attn.get_kv_cache_spec(4), [NAME], CPU).build(0, common)
    with set_forward_context({NAME: metadata}, context[1], slot_mapping={NAME: common.slot_mapping}):
        assert attn(*(tensor[:0] for tensor in tensors)).shape == (0, 32)


def test_another_shape_is_refused():
    attn, (query, key, value), *_ = one_step(DenseTorchBackend)
    with pytest.raises(
        ValueError, match=r"key: expected shape \[num_tokens, 16\] or \[num_tokens, 2, 8\], got \[3, 32\]"
    ):
        attn(query, query, value)
    with pytest.raises(ValueError, match=r"query: expected shape .* got \[3, 16\]"):
        attn(key, key, value)


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="num_heads: expected a multiple of num_kv_heads=3, got 4"):
        Attention(4, 8, 0.5, 3, attn_backend=DenseTorchBackend)


def test_a_backend_for_latents_is_no_backend_for_the_ordinary_layer():
    with pytest.raises(
        ValueError, match="attn_backend: expected a backend that is not for latents, got TORCH_MLA"
    ):
        Attention(4, 8, 0.5, attn_backend=TorchMLA)
    with pytest.raises(ValueError, match="attn_backend: expected an MLA backend, got DENSE_TORCH"):
        MLAAttention(1, 1.0, 4, 2, 4, 8, torch.zeros(8, 8), attn_backend=DenseTorchBackend)


def test_the_projection_of_latents_has_a_shape():
    with pytest.raises(ValueError, match=r"kv_b_proj: expected shape \[8, 8\], got \[8, 4\]"):
        MLAAttention(1, 1.0, 4, 2, 4, 8, torch.zeros(8, 4), attn_backend=TorchMLA)


def test_a_layer_that_is_told_nothing_asks_the_selector(device):
    attn = Attention(4, 64, 0.125, prefix=NAME, dtype=torch.float32, device=device)
    chosen = "PAGED_TORCH" if device.type == "cpu" else "TRITON_ATTN"
    assert attn.attn_backend is AttentionBackendEnum[chosen].get_class()
    assert f"backend={attn.attn_backend.get_impl_cls().__name__}" in repr(attn)


def test_outside_a_step_there_is_no_context():
    attn, tensors, *_ = one_step(DenseTorchBackend)
    assert not is_forward_context_available()
    with pytest.raises(RuntimeError, match="Forward context is not set"):
        attn(*tensors)


def test_contexts_nest_and_end_with_an_error():
    with set_forward_context({"a": 1}, {}) as outer:
        with suppress(KeyError), set_forward_context({"a": 2}, {}):
            assert get_forward_context().attn_metadata["a"] == 2
            raise KeyError
        assert get_forward_context() is outer
    assert not is_forward_context_available()


def test_layers_are_found_by_name_and_names_come_once():
    model = TinyModel(TinyConfig(), DenseTorchBackend, device="cpu")
    assert list(attention_layers(model)) == ["model.layers.0.attn", "model.layers.1.attn"]
    with pytest.raises(ValueError, match="Duplicate layer name: model.layers.0.attn"):
        attention_layers(
            torch.nn.ModuleList([model, TinyModel(attn_backend=DenseTorchBackend, device="cpu")])
        )


def test_no_triton_is_loaded_before_a_backend_uses_it():
    """Choosing a backend asks those with kernels too."""
    code = (
        "import sys, torch, kernels.backends.conformance, kernels.backends.engine\n"
        "from kernels.backends import explain_attn_backend\n"
        "explain_attn_backend(64, torch.float16); explain_attn_backend(72, torch.float16, use_mla=True)\n"
        "assert 'kernels.backends.triton_mla' in sys.modules\n"
        "assert 'triton' not in sys.modules, 'triton was loaded'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class TestStepTensors:
    def test_what_a_step_looks_like(self):
        tensors = StepTensors(4, 8, 3, 4, CPU, unused_block=9)
        common = tensors.fill([[5, 2], [7], []], [6, 2, 0], [3, 1, 1], num_tokens=7)
        assert common.query_start_loc.tolist() == common.query_start_loc_cpu.tolist() == [0, 3, 4, 5]
        assert common.seq_lens.tolist() == [6, 2, 0]
        assert common.block_table_tensor.tolist() == [[5, 2, 9], [7, 9, 9], [9, 9, 9]]
        assert common.slot_mapping.tolist() == [23, 8, 9, 29, -1, -1, -1]
        assert (common.num_reqs, common.num_actual_tokens) == (3, 5)
        assert (common.max_query_len, common.max_seq_len) == (3, 6)
        kinds = {"query_start_loc": torch.int32, "seq_lens": torch.int32, "block_table_tensor": torch.int32}
        kinds["slot_mapping"] = torch.int64
        assert all(getattr(common, name).dtype == dtype for name, dtype in kinds.items())

    def test_the_next_step_lies_at_the_same_addresses(self):
        tensors = StepTensors(4, 8, 3, 4, CPU)
        first, second = tensors.fill([[5]], [3], [3]), tensors.fill([[1]], [4], [1])
        for name in ("query_start_loc", "seq_lens", "block_table_tensor", "slot_mapping"):
            assert getattr(first, name).data_ptr() == getattr(second, name).data_ptr()
        assert first.seq_lens.tolist() == [4]

    def test_no_requests(self):
        common = StepTensors(4, 8, 3, 4, CPU).fill([], [], [])
        assert common.query_start_loc.tolist() == [0]
        assert (common.max_query_len, common.max_seq_len) == (0, 0)

    @pytest.mark.parametrize(
        ("lists", "message"),
        [
            (([[1]], [2, 3], [1, 1]), "expected an entry for each request in each, got 1, 2 and 2"),
            (
                ([[1]], [5], [1]),
                r"seq_lens\[0\]: expected 0, or 1 to 4 for 1 query tokens in 1 blocks, got 5",
            ),
            (([[1]], [2], [3]), r"seq_lens\[0\]: expected 0, or 3 to 4"),
            (
                ([[1]] * 5, [1] * 5, [1] * 5),
                "query_lens: expected up to 4 requests and 8 tokens, got 5 and 5 of 5",
            ),
            (([[1, 2, 3]], [9], [9]), "query_lens: expected up to 4 requests and 8 tokens, got 1 and 9 of 9"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, lists, message):
        with pytest.raises(ValueError, match=message):
            StepTensors(4, 8, 3, 4, CPU).fill(*lists)


def test_the_engine_binds_caches_of_the_backends_shape():
    engine = Engine(TinyModel(attn_backend=DenseTorchBackend, device="cpu"), num_blocks=5, block_size=4)
    for attn in engine.layers.values():
        assert attn.kv_cache.shape == (2, 5, 4, 2, 32)
        assert attn.kv_cache.isnan().all()
    assert isinstance(engine.builder, DenseTorchMetadataBuilder)
