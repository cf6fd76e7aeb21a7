"""The model of vLLM's choice against vLLM's own code: the committed table is fresh, and the answers are vLLM's."""

import itertools
import os
import random
import subprocess
import sys

import pytest

from course.vllm import source
from course.vllm.extract import CAPABILITIES, LARGEST, judge
from course.vllm.rules import (
    NONE,
    TABLE,
    Deployment,
    candidates,
    explain,
    place,
    priorities,
    select,
    table,
)
from course.vllm.stubs import Stub

HEAD_SIZES = [1, 4, 8, 16, 31, 32, 40, 64, 80, 96, 100, 128, 160, 192, 256, 264, 320, 512, 520, 576, 1024]
BLOCK_SIZES = [None, 1, 8, 16, 24, 32, 48, 64, 80, 96, 128, 256, 1024]
HEADS = [None, 1, 8, 16, 17, 32, 128, 256]


def grid() -> list[Deployment]:
    """Every pair of GPU, model type and cache type, every rule switched on for each, and a seeded draw of the rest."""
    covered = table()["covered"]
    usual = {"dtype": "bfloat16", "head_size": 128}
    latent = {"dtype": "bfloat16", "head_size": 576, "use_mla": True}
    flags = [name for name, default in vars(Deployment).items() if default is False]
    assert len(flags) == 7
    chosen = []
    for capability, model in itertools.product(CAPABILITIES, (usual, latent)):
        for kv_cache_dtype, dtype in itertools.product(covered["kv_cache_dtype"], covered["dtype"]):
            changed = {"kv_cache_dtype": kv_cache_dtype, "dtype": dtype}
            chosen.append(Deployment(capability=capability, **model | changed))
        for change in (
            [{"head_size": n} for n in HEAD_SIZES]
            + [{"block_size": n} for n in BLOCK_SIZES]
            + [{"num_heads": n, "use_sparse": True} for n in HEADS]
            + [{"attn_type": one} for one in covered["attn_type"]]
            + [{flag: True} for flag in flags]
            + [{"head_size": n, "use_batch_invariant": True, "has_sink": True} for n in (64, 512)]
        ):
            chosen.append(Deployment(capability=capability, **model | change))
    draw = random.Random(20)
    for _ in range(3000):
        use_mla = draw.random() < 0.4
        chosen.append(
            Deployment(
                capability=draw.choice(CAPABILITIES),
                dtype=draw.choice(covered["dtype"]),
                head_size=draw.choice([*HEAD_SIZES, draw.randint(1, LARGEST["head_size"])]),
                kv_cache_dtype=draw.choice(covered["kv_cache_dtype"]),
                block_size=draw.choice([*BLOCK_SIZES, draw.randint(1, LARGEST["block_size"])]),
                attn_type=draw.choice(["decoder", *covered["attn_type"]]),
                num_heads=draw.choice(HEADS),
                use_mla=use_mla,
                **{flag: draw.random() < 0.15 for flag in flags if flag != "use_mla"},
            )
        )
    return chosen


def test_the_committed_table_is_what_the_release_says(released_source):
    command = [sys.executable, "-m", "course.vllm.extract", "--stdout"]
    # What somebody has set for a vLLM of their own must not reach the table.
    set_by_the_user = {
        "VLLM_BATCH_INVARIANT": "1",
        "VLLM_USE_TRTLLM_ATTENTION": "0",
        "VLLM_TARGET_DEVICE": "cpu",
    }
    environment = os.environ | set_by_the_user
    fresh = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert fresh == TABLE.read_text(encoding="utf-8"), "stale: run python -m course.vllm.extract"


def test_answers_are_those_of_vllms_own_code(released_source):
    deployments = grid()
    choices = set()
    for deployment, (reasons, choice) in zip(deployments, judge(deployments), strict=True):
        ours = explain(deployment)
        assert ours == reasons, deployment
        assert list(ours) == list(reasons), deployment  # the order is part of the answer
        assert select(deployment) == choice, deployment
        choices.add(choice)
        # None comes from a backend that could not be imported.
        assert "ImportError" not in str(ours), deployment
    # Two stand behind FLASHINFER_MLA and ask for more than it does, so that it is always valid where they are.
    assert set(candidates()) - choices == {"CUTLASS_MLA", "TOKENSPEED_MLA"}


def test_places_of_the_table_are_definitions_of_the_release(released_source):
    for backend, entry in table()["backends"].items():
        module, _, qualname = entry["class"].rpartition(".")
        file = module.replace(".", "/") + ".py"
        assert entry["place"] == f"{file}:{source.locate(file, qualname)[0]}"
        for rule in entry["places"]:
            path, _, line = place(backend, rule).rpartition(":")
            assert rule in source.read(path).splitlines()[int(line) - 1]


def test_known_choices():
    """Facts that vLLM's users know; a mistake that extraction and model share would show here."""
    h100 = Deployment(capability=(9, 0), dtype="bfloat16", head_size=128)
    assert select(h100) == "FLASH_ATTN"
    b200 = Deployment(capability=(10, 0), dtype="bfloat16", head_size=128)
    assert select(b200) == "FLASHINFER"
    assert (
        select(Deployment(capability=(9, 0), dtype="bfloat16", head_size=576, use_mla=True))
        == "FLASH_ATTN_MLA"
    )
    assert (
        select(Deployment(capability=(10, 0), dtype="bfloat16", head_size=576, use_mla=True))
        == "FLASHINFER_MLA"
    )
    assert select(Deployment(capability=(8, 9), dtype="bfloat16", head_size=128, block_size=8)) == NONE


def test_the_order_does_not_depend_on_who_is_valid():
    deployment = Deployment(capability=(8, 0), dtype="float32", head_size=64, block_size=8)
    assert list(explain(deployment)) == priorities(deployment)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"capability": (9, 9)}, "capability"),
        ({"capability": 90}, "capability"),
        ({"capability": [9, 0]}, "capability"),
        ({"dtype": "fp16"}, "dtype"),
        ({"dtype": None}, "dtype"),
        ({"kv_cache_dtype": "int4"}, "kv_cache_dtype"),
        ({"attn_type": "cross"}, "attn_type"),
        ({"head_size": 0}, "head_size"),
        ({"head_size": 64.0}, "head_size"),
        ({"head_size": True}, "head_size"),
        ({"head_size": None}, "head_size"),
        ({"head_size": 2048}, "head_size"),
        ({"block_size": -16}, "block_size"),
        ({"num_heads": 0}, "num_heads"),
        ({"use_mla": 1}, "use_mla"),
        ({"has_sink": None}, "has_sink"),
    ],
)
def test_a_deployment_that_the_table_does_not_cover_is_refused_by_name(change, named):
    with pytest.raises(ValueError, match=f"^{named}: expected"):
        Deployment(**{"capability": (9, 0), "dtype": "float16", "head_size": 64} | change)


def test_a_stub_decides_nothing():
    stub = Stub("flashinfer.version")
    assert isinstance(stub.parse("1")["x"](2), Stub)
    for question in (bool, len, iter, int, lambda s: s == 1, lambda s: s >= stub):
        with pytest.raises(TypeError, match=r"a rule of vLLM depends on flashinfer\.version"):
            question(stub)


def test_place_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"^backend: "):
        place("XFORMERS", "is_mla")
    with pytest.raises(ValueError, match=r"^rule: "):
        place("FLASH_ATTN", "supports_sliding_window")


def test_the_model_needs_neither_torch_nor_vllm():
    code = (
        "import sys, course.vllm.rules; assert not {'torch', 'vllm', 'course.vllm.stubs'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
