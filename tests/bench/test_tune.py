"""Other choices in the chooser's place: that launchers ask them, and what is printed. The times are a GPU's to tell."""

import pytest
import torch

import kernels
from bench import measure, tune
from bench.cases import CASES, Case
from bench.contender import ERROR_LIMIT
from bench.inputs import Inputs
from kernels import decode, latent, prefill

SMALL = Case("small", ((1, 5), (1, 40)), num_heads=4, num_kv_heads=2, head_size=16)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_without_a_gpu_one_sentence_and_status_2(capsys):
    assert tune.main([]) == 2
    assert capsys.readouterr().out.startswith("Nothing to measure: kernels run here on: CPU")


def test_an_unknown_case_is_named(capsys):
    with pytest.raises(SystemExit):
        tune.main(["nothing"])
    assert "got 'nothing'" in capsys.readouterr().err


def test_every_kind_of_case_has_a_rung_and_a_chooser():
    names = {one.name for one in tune.CONTENDERS}
    for kind in {case.kind for case in CASES}:
        rung, module, chooser = tune.PLACES[kind]
        assert rung in names
        assert callable(getattr(module, chooser))
        assert next(iter(tune.choosers(kind))) == tune.OWN


@pytest.mark.parametrize(
    ("kind", "module", "name"),
    [
        ("prefill", prefill, "choose_tile"),
        ("latent", latent, "_choose_tile"),
        ("decode", decode, "choose_config"),
    ],
)
def test_a_choice_stands_in_the_choosers_place_and_leaves_it(kind, module, name):
    own = getattr(module, name)
    for choose in tune.choosers(kind).values():
        with tune.chosen_by(kind, choose):
            assert getattr(module, name) is choose
        assert getattr(module, name) is own


def test_another_cut_of_decode():
    choose = tune.choosers("decode")[str((32768, 2, 3))]
    config = choose(256, 64, kernels.device())
    assert (config.tile_size, config.num_stages) == (128, 2)
    assert config.wanted_splits >= 51


@pytest.mark.skipif(not kernels.INTERPRET, reason="small inputs for the interpreter")
def test_the_launcher_asks_the_choice():
    inputs = Inputs(SMALL, 0, device="cpu", dtype=torch.float16)
    asked = []
    own = decode.choose_config

    def choose(*shapes, **more):
        asked.append(shapes)
        return own(*shapes, **more)

    with tune.chosen_by("decode", choose):
        output = kernels.paged_decode(
            inputs.query,
            inputs.key_cache,
            inputs.value_cache,
            inputs.block_table,
            inputs.seq_lens,
            inputs.scale,
            tier="triton",
        )
    assert asked
    assert inputs.error(output) < ERROR_LIMIT


def test_the_table_has_the_fastest_first_and_says_what_failed():
    found = {
        "slow": measure.summarise(SMALL, [2e-6] * 5, 1e-3, ERROR_LIMIT),
        "fast": measure.summarise(SMALL, [1e-6] * 5, 1.0, ERROR_LIMIT),
        "large": {"failed": "OutOfResources: shared memory"},
    }
    lines = tune.format_case(SMALL, found)
    assert [line.split()[0].rstrip(":") for line in lines] == ["small", "fast", "slow", "large"]
    assert lines[1].endswith("WRONG")
    assert "OutOfResources" in lines[3]
