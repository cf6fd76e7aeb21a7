"""Luck with a draw of the hidden suite is found, and the committed table has none."""

from dataclasses import replace

import pytest

from autograder import registry
from autograder.registry import Check, Misconception
from bench.grading import hidden_draws
from bench.grading.hidden_draws import OUT, Row, examine, table


def test_a_mistake_that_shows_on_some_draws_only_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = registry.get("merge_states")

    def sometimes(suite: object) -> list[object]:
        cases = found.cases(suite)  # type: ignore[arg-type]
        return cases if suite.seed % 3 else cases[:0]  # type: ignore[attr-defined]

    made: Check = replace(found, cases=sometimes, misconceptions=found.misconceptions[:1])  # type: ignore[arg-type]
    monkeypatch.setattr(registry, "get", lambda name: made)
    monkeypatch.setattr(hidden_draws, "NUM_DRAWS", 7)
    (row,) = examine("merge_states")
    assert row == Row("merge_states", found.misconceptions[0].name, 7, (0, 3, 6))
    assert f"{row.mistake} (3 of 7)" in table([row])
    right: Misconception = replace(found.misconceptions[0], parts=found.solution)
    monkeypatch.setattr(registry, "get", lambda name: replace(found, misconceptions=(right,)))
    assert len(examine("merge_states")[0].let_through) == 7


def test_what_is_committed_is_about_all_checks_and_lets_nothing_through() -> None:
    text = OUT.read_text(encoding="utf-8")
    for name in registry.names():
        count = len(registry.get(name).misconceptions)
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
        _, _, mistakes, draws, through, _ = (cell.strip() for cell in line.split("|"))
        assert (int(mistakes), through) == (count, "none"), line
        assert int(draws) >= 1
