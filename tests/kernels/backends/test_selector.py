"""Which backend is chosen, why not the others, and how one from outside gets in."""

import pytest
import torch

from kernels import runtime
from kernels.backends import (
    AttentionBackend,
    AttentionBackendEnum,
    AttentionSelectorConfig,
    DeviceCapability,
    explain_attn_backend,
    get_attn_backend,
    get_valid_backends,
    register_backend,
    selector,
)
from kernels.backends.backend import MultipleOf
from kernels.backends.dense_torch import DenseTorchBackend
from kernels.backends.kv_cache_interface import kv_cache_torch_dtype
from kernels.backends.paged_torch import PagedTorchBackend

HOPPER, AMPERE = DeviceCapability(9, 0), DeviceCapability(8, 0)


@pytest.fixture
def on_gpu(monkeypatch):
    """As on a machine with a GPU: Triton compiles, and the capability is what a test says."""

    def pretend(capability):
        monkeypatch.setattr(runtime, "INTERPRET", False)
        monkeypatch.setattr(selector, "get_device_capability", lambda device=None: capability)

    return pretend


def names(backends):
    return [backend.name for backend in backends]


@pytest.mark.parametrize(
    ("capability", "config", "expected"),
    [
        (HOPPER, {}, "HOPPER_ATTN"),
        (AMPERE, {}, "TRITON_ATTN"),
        (HOPPER, {"dtype": torch.float32}, "TRITON_ATTN"),
        (HOPPER, {"dtype": torch.float64}, "PAGED_TORCH"),
        (HOPPER, {"head_size": 80}, "TRITON_ATTN"),
        (HOPPER, {"kv_cache_dtype": "fp8"}, "TRITON_ATTN"),
        (HOPPER, {"block_size": 24}, "TRITON_ATTN"),
        (HOPPER, {"block_size": 32, "has_sink": True}, "HOPPER_ATTN"),
        (HOPPER, {"use_mla": True, "head_size": 576}, "TRITON_MLA"),
        (AMPERE, {"backend": "dense_torch"}, "DENSE_TORCH"),
        (AMPERE, {"backend": AttentionBackendEnum.PAGED_TORCH}, "PAGED_TORCH"),
        (AMPERE, {"backend": "auto"}, "TRITON_ATTN"),
    ],
)
def test_the_choice_on_a_gpu(on_gpu, capability, config, expected):
    on_gpu(capability)
    question = {"head_size": 128, "dtype": torch.bfloat16} | config
    assert get_attn_backend(**question).get_name() == expected


def test_a_cpu_takes_torch(monkeypatch):
    monkeypatch.setattr(runtime, "INTERPRET", True)
    assert get_attn_backend(64, torch.float32, device="cpu") is PagedTorchBackend
    reasons = explain_attn_backend(64, torch.bfloat16, block_size=24, device="cpu")
    assert reasons == {
        "PAGED_TORCH": [],
        "DENSE_TORCH": [],
        "TRITON_ATTN": ["Triton's interpreter computes bfloat16 wrongly"],
        "HOPPER_ATTN": [
            "block_size not supported",
            "compute capability not supported",
            "Gluon has no interpreter",
        ],
    }


def test_where_triton_does_not_run_it_says_so(monkeypatch):
    """A model on the CPU of a machine whose kernels run on its GPU, and the other way round."""
    monkeypatch.setattr(runtime, "INTERPRET", False)
    (reason,) = explain_attn_backend(64, torch.float16, device="cpu")["TRITON_ATTN"]
    assert reason.startswith("the model is on a CPU, and Triton kernels run on: ")
    monkeypatch.setattr(runtime, "INTERPRET", True)
    config = AttentionSelectorConfig(64, torch.float16, "auto", None)
    _, reasons = get_valid_backends(config, HOPPER)
    assert reasons[AttentionBackendEnum.TRITON_ATTN] == [
        "the model is on a GPU, and Triton kernels run on: CPU (Triton interpreter)"
    ]


def test_valid_ones_and_reasons_are_in_the_order_of_priority(on_gpu):
    on_gpu(AMPERE)
    config = AttentionSelectorConfig(64, torch.float16, "fp8", None)
    valid, reasons = get_valid_backends(config, AMPERE)
    assert names(valid) == ["TRITON_ATTN", "PAGED_TORCH"]
    assert {backend.name: why for backend, why in reasons.items()} == {
        "HOPPER_ATTN": ["kv_cache_dtype not supported", "compute capability not supported"],
        "DENSE_TORCH": ["kv_cache_dtype not supported"],
    }


def test_no_environment_variable_chooses(monkeypatch):
    monkeypatch.setenv("VLLM_ATTENTION_BACKEND", "DENSE_TORCH")
    assert get_attn_backend(64, torch.float32, device="cpu") is PagedTorchBackend


def test_a_users_choice_that_is_not_valid_is_refused_with_its_reasons():
    with pytest.raises(ValueError, match="Selected backend HOPPER_ATTN is not valid .*compute capability"):
        get_attn_backend(64, torch.float16, backend="hopper_attn", device="cpu")


def test_nothing_valid_is_said_with_all_reasons():
    with pytest.raises(ValueError, match=r"No valid attention backend.*DENSE_TORCH: \[dtype not supported\]"):
        get_attn_backend(64, torch.int8, device="cpu")


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"head_size": 0}, "head_size: expected a whole number of at least 1, got 0"),
        ({"dtype": "float16"}, "dtype: expected a torch.dtype, got 'float16'"),
        ({"kv_cache_dtype": "int3"}, "kv_cache_dtype: expected one of auto, float16, .* got 'int3'"),
        ({"block_size": 16.0}, "block_size: expected None or a whole number"),
        ({"backend": "FLASH"}, "Unknown attention backend: 'FLASH'. Valid options are: DENSE_TORCH, "),
        ({"backend": 3}, "backend: expected an AttentionBackendEnum, its name or None, got 3"),
    ],
)
def test_a_bad_question_is_refused(question, message):
    with pytest.raises(ValueError, match=message):
        get_attn_backend(**({"head_size": 64, "dtype": torch.float16, "device": "cpu"} | question))


@pytest.fixture
def custom():
    yield AttentionBackendEnum.CUSTOM
    AttentionBackendEnum.CUSTOM.clear_override()


def test_a_backend_from_outside(custom):
    with pytest.raises(ValueError, match="Backend CUSTOM must be registered before use"):
        custom.get_class()

    @register_backend(custom)
    class Mine(DenseTorchBackend):
        pass

    assert custom.get_class() is Mine
    assert custom.is_overridden()
    assert custom.get_path().endswith("Mine")
    assert get_attn_backend(64, torch.float32, backend="custom", device="cpu") is Mine
    custom.clear_override()
    assert not custom.is_overridden()


def test_a_path_in_the_place_of_ours():
    ours = AttentionBackendEnum.DENSE_TORCH
    register_backend(ours, "kernels.backends.paged_torch.PagedTorchBackend")
    try:
        assert ours.get_class() is PagedTorchBackend
    finally:
        ours.clear_override()
    assert ours.get_class() is DenseTorchBackend


def test_what_is_no_backend_is_not_registered(custom):
    with pytest.raises(ValueError, match="expected a subclass of AttentionBackend, got <class 'int'>"):
        register_backend(custom)(int)
    assert not custom.is_overridden()


def test_every_backend_is_what_its_name_says():
    for member in AttentionBackendEnum:
        if member is not AttentionBackendEnum.CUSTOM:
            assert member.get_class().get_name() == member.name
            assert issubclass(member.get_class(), AttentionBackend)


def test_block_sizes():
    class Sixteens(DenseTorchBackend):
        @staticmethod
        def get_supported_kernel_block_sizes():
            return [MultipleOf(16), 8]

    assert all(Sixteens.supports_block_size(size) for size in (None, 8, 16, 24, 48))
    assert not Sixteens.supports_block_size(12)


def test_which_dimension_counts_blocks():
    assert DenseTorchBackend.get_kv_cache_block_dim(16, 2, 64) == 1
    assert AttentionBackendEnum.TRITON_ATTN.get_class().get_kv_cache_block_dim(16, 2, 64) == 0


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("auto", torch.bfloat16),
        ("float16", torch.float16),
        ("fp8", torch.float8_e4m3fn),
        ("fp8_e5m2", torch.float8_e5m2),
    ],
)
def test_cache_dtypes_by_name(name, dtype):
    assert kv_cache_torch_dtype(name, torch.bfloat16) == dtype
