"""The suite passes what is right, and says of each seeded fault what is wrong with it."""

from dataclasses import replace

import pytest
import torch

from kernels.backends import AttentionBackendEnum, conformance, get_device_capability
from kernels.backends.dense_torch import DenseTorchBackend
from tests.kernels.backends import faulty
from tests.kernels.backends.faults import FAULTS
from tests.kernels.backends.faulty import Attends, TorchMLA, dense

# What each of ours may leave out, on a GPU; elsewhere the graph too.
LEFT_OUT = {
    "DENSE_TORCH": {"fp8_cache", "cuda_graph"},
    "PAGED_TORCH": {"cuda_graph"},
    "TRITON_ATTN": set(),
    "HOPPER_ATTN": {"fp8_cache"},
    "TRITON_MLA": {"sliding_window", "softcap_and_alibi", "sinks"},
}


def assert_conforms(backend, device, dtype, left_out):
    results = conformance.run(backend, device=device, dtype=dtype)
    print(conformance.table(results))
    assert [result.name for result in results if result.passed is False] == []
    if device.type != "cuda":
        left_out = left_out | {"cuda_graph"}
    assert {result.name for result in results if result.passed is None} == left_out


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(torch.float32, id="fp32"),
        # In the interpreter the kernels' own tests have float16, and the suite takes seconds.
        pytest.param(torch.float16, id="fp16", marks=pytest.mark.gpu),
        pytest.param(torch.bfloat16, id="bf16", marks=pytest.mark.gpu),
    ],
)
@pytest.mark.parametrize("name", ["TRITON_ATTN", "TRITON_MLA"])
def test_the_triton_backends_conform(name, dtype, device):
    assert_conforms(AttentionBackendEnum[name].get_class(), device, dtype, LEFT_OUT[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["DENSE_TORCH", "PAGED_TORCH"])
def test_the_torch_backends_conform(name, dtype, device):
    assert_conforms(AttentionBackendEnum[name].get_class(), device, dtype, LEFT_OUT[name])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_hopper_backend_conforms(dtype, device):
    if get_device_capability(device)[0] != 9:
        pytest.skip("needs a Hopper GPU")
    backend = AttentionBackendEnum.HOPPER_ATTN.get_class()
    assert_conforms(backend, device, dtype, LEFT_OUT["HOPPER_ATTN"])


def test_right_backends_written_otherwise_conform(device):
    """What the faults are made of is right: a fault is its one line."""
    assert_conforms(TorchMLA, device, torch.float32, LEFT_OUT["TRITON_MLA"] | {"cuda_graph"})
    # Written out without softcap, ALiBi and sinks.
    results = conformance.run(dense("AttendsBackend", Attends), device=device)
    assert {result.name for result in results if result.passed is False} == {"softcap_and_alibi", "sinks"}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.name, marks=[pytest.mark.gpu] if fault.only_on == "gpu" else [])
        for fault in FAULTS
    ],
)
def test_a_fault_is_noticed_and_named(fault, device):
    if fault.only_on == "cpu":
        device = torch.device("cpu")
    for result in conformance.run(fault.backend, device=device, checks=list(fault.notices)):
        assert result.passed is False, result.name
        assert fault.notices[result.name] in result.message, result.name


def test_every_check_fails_for_some_fault():
    noticed = {name for fault in FAULTS for name in fault.notices}
    assert noticed == set(conformance.CHECKS)


@pytest.mark.parametrize(
    "backend", [faulty.Unwritten, dense("NothingIsSupported", faulty.SaysNothingIsSupported)]
)
def test_what_is_not_written_is_not_left_out(backend, device):
    """A stub raises NotImplementedError, and so does an impl that lacks an option: only options may be left out."""
    results = conformance.run(backend, device=device)
    about_itself = set() if backend is faulty.Unwritten else {"description", "cache_shape"}
    assert {result.name for result in results if result.passed} == about_itself
    assert {result.name for result in results if result.passed is None} <= conformance.OPTIONAL
    assert all("NotImplementedError" in result.message for result in results if result.passed is False)


def test_the_message_says_where_and_by_how_much(device):
    (fault,) = [fault for fault in FAULTS if fault.name == "ReadsWholeBlocksBackend"]
    (result,) = conformance.run(fault.backend, device=device, checks=["reused_blocks"])
    for words in (
        "request 1 (2 query tokens, the last of 2, in blocks [",
        "its token at position 0, head 0, element 0: expected ",
        "numbers are off, by up to ",
        "is allowed)",
    ):
        assert words in result.message
    assert "nobody wrote" not in result.message
    (result,) = conformance.run(fault.backend, device=device, checks=["write_before_read"])
    assert "got nan" in result.message
    assert result.message.endswith(
        "; NaN is what a slot holds that nobody wrote, so such a slot was read, or the output never written"
    )


def test_the_table_is_for_a_person(device):
    (fault,) = [fault for fault in FAULTS if fault.name == "WindowOfOneMoreBackend"]
    checks = ["cache_shape", "sliding_window", "fp8_cache"]
    lines = conformance.table(conformance.run(fault.backend, device=device, checks=checks)).splitlines()
    assert lines[0].split() == ["cache_shape", "passed"]
    assert lines[1].split() == ["sliding_window", "FAILED"]
    assert lines[2] == ("    holds: With a window of w a query sees its own key and the w - 1 before it.")
    assert lines[3].startswith("    found: with a window of 1: request 0")
    assert lines[4] == "fp8_cache       left out: kv_cache_dtype not supported"
    assert lines[5] == "1 passed, 1 failed, 1 left out"


def test_another_seed_draws_other_numbers_and_other_blocks():
    drawn = []
    for seed in (0, 0, 1):
        setup = replace(conformance.choose_setup(DenseTorchBackend, "cpu"), seed=seed)
        request = conformance.Trial(setup).request(9)
        drawn.append((request.blocks, request.query.tolist()))
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[2][0]
    assert drawn[0][1] != drawn[2][1]


def test_every_check_says_what_it_holds():
    assert all(check.__doc__ and check.__doc__.endswith(".") for check in conformance.CHECKS.values())


@pytest.mark.parametrize(
    ("backend", "options", "message"),
    [
        (object, {}, "backend: expected a subclass of AttentionBackend"),
        (DenseTorchBackend, {"checks": ["speed"]}, "checks: expected some of description, "),
        (
            DenseTorchBackend,
            {"dtype": torch.int8},
            "DENSE_TORCH does not take this setup: dtype not supported",
        ),
    ],
)
def test_what_cannot_be_tried_is_refused(backend, options, message, device):
    with pytest.raises(ValueError, match=message):
        conformance.run(backend, device=device, **options)


def test_hopper_on_a_cpu_is_refused_with_its_reasons():
    with pytest.raises(ValueError, match="compute capability not supported, Gluon has no interpreter"):
        conformance.run(AttentionBackendEnum.HOPPER_ATTN.get_class(), device="cpu", dtype=torch.float16)
