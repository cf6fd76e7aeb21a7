"""Question 7's check: vLLM's own fields, vLLM's own choice with and without the user's word, and ten more in grading."""

import re
from typing import Any

import pytest

from autograder import CheckFailed, check, registry
from autograder.checks.q7_selector import VARIABLE, inputs, predicted
from autograder.examine import examine
from autograder.suite import Suite, open_suite
from course.candidates import CONFIGURATIONS, INPUTS, USUAL, deployment_of
from course.vllm import source as vllm_source
from course.vllm.extract import judge
from course.vllm.rules import NONE

CHECK = registry.get("q7_selector")
TRUTH: dict[str, Any] = dict(CHECK.solution)


def failures(suite: Suite | None = None, **changes: Any) -> list[str]:
    verdict = examine(CHECK, {**TRUTH, **changes}, suite or open_suite("visible"))
    return [failure.problem.headline for failure in verdict.failures]


def drawn(seed: int) -> list[dict[str, Any]]:
    cases = CHECK.cases(Suite("hidden", seed))
    return [asked for case in cases for asked in case.inputs.get("asked", {}).values()]


@pytest.mark.usefixtures("released_source")
def test_the_truth_is_what_vllms_own_code_arrives_at() -> None:
    configurations = [*CONFIGURATIONS.values(), *(one for seed in range(12) for one in drawn(seed))]
    names = [configuration["attention_backend"] for configuration in configurations]
    named = [None if name in (None, "auto") else name.upper() for name in names]
    answers = judge(map(deployment_of, configurations), named)
    assert [choice for _, choice in answers] == [predicted(configuration) for configuration in configurations]
    assert {choice for _, choice in answers} >= {
        "FLASH_ATTN",
        "FLASHINFER",
        "TRITON_ATTN",
        "FLEX_ATTENTION",
        NONE,
    }


@pytest.mark.usefixtures("released_source")
def test_the_places_that_decide_say_what_the_check_says() -> None:
    assert not [
        path
        for path in vllm_source.expected_files()
        if path.endswith(".py") and VARIABLE in vllm_source.read(path)
    ]
    assert "Unknown vLLM environment variable detected" in line("vllm/envs.py", 2057)
    assert "validate_environ" in line("vllm/engine/arg_utils.py", 1711)
    assert '"--attention-backend"' in line("vllm/engine/arg_utils.py", 900)
    assert '"--attention-config", "-ac"' in line("vllm/engine/arg_utils.py", 1479)
    assert 'value.lower() == "auto"' in line("vllm/config/attention.py", 100)
    assert "value.upper()" in line("vllm/config/attention.py", 102)
    assert "selected_backend is not None" in line("vllm/platforms/cuda.py", 303)
    assert "raise ValueError" in line("vllm/platforms/cuda.py", 313)


def line(path: str, number: int) -> str:
    return vllm_source.read(path).splitlines()[number - 1]


def test_the_ten_teach_different_things() -> None:
    assert len(CONFIGURATIONS) == 10
    choices = {name: predicted(configuration) for name, configuration in CONFIGURATIONS.items()}
    assert set(choices.values()) == {"FLASH_ATTN", "FLASHINFER", "TRITON_ATTN", NONE}
    assert inputs() == TRUTH["q7_inputs"]
    assert set(INPUTS) - inputs() >= {"sliding_window", "batch_size", "is_prefill"}
    for field in ("attention_backend", "environment", "sliding_window", "capability", "has_sink", "use_mla"):
        assert any(configuration[field] != USUAL[field] for configuration in CONFIGURATIONS.values()), field


def test_a_function_is_asked_about_ten_more_in_grading_and_a_table_about_the_ten() -> None:
    table = {name: predicted(configuration) for name, configuration in CONFIGURATIONS.items()}
    by_heart = {repr(configuration): table[name] for name, configuration in CONFIGURATIONS.items()}

    def learnt_by_heart(configuration: dict[str, Any]) -> str:
        return by_heart.get(repr(configuration), "FLASH_ATTN")

    for suite in (open_suite("visible"), Suite("hidden", 5)):
        assert failures(suite, q7_predict=table) == []
        assert len(CHECK.cases(suite)) == 12
    assert failures(q7_predict=learnt_by_heart) == []
    assert len(failures(Suite("hidden", 5), q7_predict=learnt_by_heart)) > 3
    assert drawn(5) == drawn(5) != drawn(6)


def test_a_hidden_configuration_is_in_no_hidden_message() -> None:
    verdict = examine(
        CHECK, {**TRUTH, "q7_predict": lambda configuration: "FLEX_ATTENTION"}, Suite("hidden", 5)
    )
    details = [failure.problem.detail for failure in verdict.failures if failure.problem.detail]
    assert not any(detail in verdict.message() for detail in details)


@pytest.mark.parametrize("said", [
    "--attention-backend", "--attention-backend FLASHINFER", "vllm serve m --attention-backend=TRITON_ATTN", "attention_backend",
    'LLM(model="m", attention_backend="FLASHINFER")', "--attention-config.backend FLEX_ATTENTION", "-ac.backend FLASHINFER",
    """--attention-config '{"backend": "TRITON_ATTN"}'""", "attention_config=AttentionConfig(backend=...)", " `--attention-backend X` ",
])  # fmt: skip
def test_every_way_that_works_is_right(said: str) -> None:
    assert failures(q7_override=said) == []


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("VLLM_ATTENTION_BACKEND=FLASHINFER", "is in none of vLLM 0.22.1's files: the server starts with one warning and ignores it"),
        ("export VLLM_ATTENTION_BACKEND=X, or --attention-backend X", "is in none of vLLM 0.22.1's files"),
        ("--attn-backend X", "it is nearly the flag's name"),
        ("--attention-backends X", "it is nearly the flag's name"),
        ("--mm-attention-backend X", "is no flag or argument of vLLM 0.22.1"),
        ("--backend X", "is no flag or argument of vLLM 0.22.1 that names a backend"),
        ("--kv-cache-dtype fp8", "is no flag or argument of vLLM 0.22.1 that names a backend"),
        ("", "is empty"),
        (["--attention-backend"], "got a list"),
    ],
)  # fmt: skip
def test_a_way_that_does_not_work_is_told_so(said: Any, words: str) -> None:
    (headline,) = failures(q7_override=said)
    assert words in headline


@pytest.mark.parametrize(
    ("predict", "words"),
    [
        ({"hopper-plain": "FLASH_ATTN"}, "q7_predict has no entry for hopper-flag"),
        (lambda configuration: None, "q7_predict for hopper-plain is empty; expected the name of a backend"),
        (lambda configuration: ["FLASH_ATTN"], "got a list"),
        (lambda configuration: "FLASH_ATTENTION", "'FLASH_ATTENTION' is no backend that vLLM asks on an NVIDIA GPU; did you mean"),
        (lambda configuration: "TRITON_MLA", "TRITON_MLA is not in the priority list here"),
        (lambda configuration: "none", "at least one backend in the priority list has nothing against it"),
        (lambda configuration: configuration["gpu"], "your code raised KeyError: 'gpu'"),
        (None, "q7_predict is empty; expected a function of a configuration"),
    ],
)  # fmt: skip
def test_a_prediction_that_is_none_is_told_what_is_expected(predict: Any, words: str) -> None:
    assert words in failures(q7_predict=predict)[0]


def test_a_function_gets_a_configuration_of_its_own() -> None:
    def empties(configuration: dict[str, Any]) -> str:
        answer = TRUTH["q7_predict"](configuration)
        configuration["environment"].clear()
        configuration.clear()
        return answer

    before = repr(CONFIGURATIONS)
    assert failures(q7_predict=empties) == []
    assert repr(CONFIGURATIONS) == before


def test_the_stub_earns_nothing_and_each_part_earns_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def stub(configuration: dict[str, Any]) -> str:
        raise NotImplementedError("Your code here.")

    for predict in (stub, None, {}):
        with pytest.raises(
            CheckFailed,
            match="this is not answered yet: fill in q7_inputs, q7_predict and q7_override",
        ):
            check("q7_selector", (set(), predict, ""))
    with pytest.raises(
        CheckFailed,
        match="q7_predict: expected a function of a configuration, or a dict with the ten, got a str",
    ):
        check("q7_selector", (TRUTH["q7_inputs"], "FLASH_ATTN", "--attention-backend"))
    assert check("q7_selector", (TRUTH["q7_inputs"], stub, "--attention-backend")) == 2
    assert check("q7-selector", tuple(TRUTH.values()), suite="hidden") == 12
    assert re.search("all 12 hidden cases pass", capsys.readouterr().out)
