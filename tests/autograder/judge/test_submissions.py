"""The hostile submissions that are also graded by stock nbgrader (`bench.grading.hostile`): each loses its own points and no others."""

from dataclasses import replace
from typing import Any

import nbformat
import pytest

from autograder.judge.judge import Judge
from bench.grading.hostile_submissions import Attack, attacks, expected, submission
from tests.autograder.judge.conftest import without_demonstrations

# What the learner is told of the test that is lost.
SAYS = {
    "equal-to-everything": "is a Anything; expected a torch.Tensor",
    "lazy-tensor": "is a Lazy; expected a torch.Tensor",
    "pickle-bomb": "got a Bomb",
    "exit-0": "ended its process (exit status 0)",
    "segfault": "crashed (Segmentation fault)",
    "loop": "did not finish within 1 s",
    "memory": "more memory than there is",
    "mutated-inputs": "changes its input `values` in place",
}
# The status of the test that is lost. A fork bomb ends at whichever limit it meets first.
STATUSES = {
    "exit-0": {"crashed"},
    "segfault": {"crashed"},
    "loop": {"timeout"},
    "memory": {"memory"},
    "fork-bomb": {"crashed", "timeout", "memory"},
}
# Of what they take all that there is, more than once.
LESS: dict[str, Any] = {
    "loop": {"cell": 3, "call": 1},
    "fork-bomb": {"cell": 3, "call": 1},
    "memory": {"memory": 2**29},
}
FLAGS = {
    "deleted-test": "tampered-notebook",
    "no-test-any-more": "tampered-notebook",
    "skipped-test": "tampered-notebook",
    "equal-to-everything": "suspicious-object",
    "lazy-tensor": "suspicious-object",
    "pickle-bomb": "suspicious-object",
    "patched-checker": "suspicious-text",
    "daemon": "suspicious-text",
    "errors-swallowed": "suspicious-text",
    "loop": "timeout",
    "memory": "memory",
    "segfault": "crashed",
}


def _id(attack: Attack) -> str:
    return "-".join([*map(str, attack.catalogue), attack.name])


@pytest.mark.parametrize("attack", attacks(), ids=_id)
def test_it_costs_its_own_points(judge: Judge, attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    less = replace(judge.sandbox.limits, **LESS.get(attack.name, {}))
    monkeypatch.setattr(judge.sandbox, "limits", less)
    judged = judge.judge(nbformat.writes(without_demonstrations(submission(attack))).encode())
    assert {name: result.points for name, result in judged.checks.items()} == expected(attack)
    for name in attack.lost:
        result = judged.checks[name]
        assert result.status in STATUSES.get(attack.name, {"wrong", "error"}), result
        assert "hidden" not in result.message
    said = " ".join(judged.checks[name].message for name in attack.lost)
    assert SAYS.get(attack.name, "") in said
    if attack.name in FLAGS:
        assert FLAGS[attack.name] in judged.flags


def test_right_answers_raise_no_flag(learners: Any) -> None:
    assert learners.hand_in().flags == ()
