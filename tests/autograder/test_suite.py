"""The visible suite is fixed, the hidden one is fresh each time and can be replayed."""

import pytest
import torch

from autograder import registry
from autograder.suite import SEED_VARIABLE, Suite, open_suite


def test_the_visible_suite_never_changes() -> None:
    assert open_suite("visible") == open_suite("visible")


def test_the_hidden_suite_is_drawn_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SEED_VARIABLE, raising=False)
    assert open_suite("hidden").seed != open_suite("hidden").seed


def test_a_seed_replays_a_hidden_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEED_VARIABLE, "42")
    assert open_suite("hidden") == Suite("hidden", 42)
    monkeypatch.setenv(SEED_VARIABLE, "many")
    with pytest.raises(ValueError, match="AUTOGRADER_SEED: expected a whole number, got 'many'"):
        open_suite("hidden")


# Facts about vLLM are asked for, and nothing is drawn; of q7_selector a part is, which its own test looks at.
FACTS = {"q1_verdicts", "q4_forward", "q5_classes", "q6_paths", "q7_selector", "self_path", "q13_diagnosis"}
# A plan, what its own run shows, and what the learner's own classes do, are looked at in one way.
FACTS |= {"q11_plan", "q11_conclusion", "q12_reuse"}
# A case is a point, in either suite: what a hidden one holds is drawn, how many there are is not.
A_POINT_EACH = {"latent_backend", "is_faulty", "minimise"}


@pytest.mark.parametrize("name", [n for n in registry.names() if n not in FACTS])
def test_hidden_cases_differ_from_the_visible_and_between_gradings(name: str) -> None:
    cases = registry.get(name).cases
    visible, first, again, second = (
        cases(suite)
        for suite in (open_suite("visible"), Suite("hidden", 1), Suite("hidden", 1), Suite("hidden", 2))
    )
    assert len(first) == len(visible) if name in A_POINT_EACH else len(first) > len(visible)
    assert _numbers(first) == _numbers(again)
    assert _numbers(first) != _numbers(second)
    assert _numbers(first)[: len(visible)] != _numbers(visible)


def _numbers(cases: list) -> list:  # type: ignore[type-arg]
    def plain(value: object) -> object:
        if isinstance(value, torch.Tensor):
            return value.tolist()
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        return value

    return [{name: repr(plain(value)) for name, value in case.inputs.items()} for case in cases]
