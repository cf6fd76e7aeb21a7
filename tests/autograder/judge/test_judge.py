"""The judge on honest submissions: every right road gets every point, every known mistake gets its name."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

import kernels
from autograder import registry
from autograder.grading.sample_answers import samples
from autograder.grading.sample_class import answer, checked
from autograder.judge.judge import Judge
from autograder.judge.rebuild import is_locked, trusted_imports
from autograder.judge.sandbox import Sandbox, SandboxLost
from tests.autograder.points import points_of

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_right_variants_get_every_point_and_mistakes_their_names(learners: Any) -> None:
    grade_ids = checked(learners.lesson)
    assert grade_ids == ["q1-verdicts", "q2-metadata", "q2-attend", "q3-update", "q3-merge"]
    named: set[tuple[str, str]] = set()
    for sample in samples(grade_ids):
        # Who makes mistakes is judged where they are made: the others get every point for the rest.
        data = nbformat.writes(answer(sample, learners.notebook())).encode()
        judged = learners.judge.judge(data, only=frozenset(sample.mistakes) or None, to_the_end=False)
        found = {name: r.misconception for name, r in judged.checks.items() if r.misconception}
        assert found == sample.mistakes, sample.learner
        named |= set(found.items())
        if not sample.mistakes:
            assert judged.score == 26, sample.learner
        for name, result in judged.checks.items():
            assert result.status in (("wrong", "error") if name in sample.mistakes else ("passed",))
            assert result.points == points_of(sample, registry.get(name), result.max_points), sample.learner
    expected = {
        (check.grade_id, misconception.name)
        for check in map(registry.get, grade_ids)
        for misconception in check.misconceptions
    }
    assert named == expected


def test_a_seed_repeats_the_hidden_cases_and_without_one_they_are_fresh(learners: Any, judge: Judge) -> None:
    wrong = "def merge_states(a, b):\n    return a"
    first = learners.hand_in(q3_merge_code=wrong)
    again = learners.hand_in(q3_merge_code=wrong)
    assert first.seed == again.seed == judge.seed
    verdicts = [[v for r in judged.checks.values() for v in r.verdicts] for judged in (first, again)]
    assert verdicts[0] == verdicts[1]
    assert {v.seed for v in verdicts[0] if v.suite == "hidden"} == {judge.seed}


def test_the_same_output_is_inspected_once(learners: Any, judge: Judge) -> None:
    learners.hand_in()
    before = judge._inspections.repeated
    judged = learners.hand_in()
    cases = sum(v.num_cases for r in judged.checks.values() for v in r.verdicts)
    assert judge._inspections.repeated - before == cases


def test_cells_behind_the_last_wanted_test_can_be_left_out(learners: Any, judge: Judge) -> None:
    data = nbformat.writes(learners.notebook()).encode()
    wanted = frozenset({"q2-metadata"})
    whole, short = judge.judge(data, only=wanted), judge.judge(data, only=wanted, to_the_end=False)
    assert short.checks.keys() == whole.checks.keys() == wanted
    assert short.score == whole.score > 0
    assert 0 < len(short.cells) < len(whole.cells)


def test_the_machines_fault_is_no_zero(learners: Any, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Sandbox.start_worker

    def fails_after_two(self: Sandbox) -> Any:
        fails_after_two.calls += 1  # type: ignore[attr-defined]
        if fails_after_two.calls > 1:  # type: ignore[attr-defined]
            raise SandboxLost("the GPU has fallen off the bus")
        return start(self)

    fails_after_two.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(Sandbox, "start_worker", fails_after_two)
    judged = learners.hand_in(q2_metadata_code="import os\nos._exit(0)")
    assert judged.checks["q1-verdicts"].points == 8
    for name in ("q2-metadata", "q3-merge"):
        result = judged.checks[name]
        assert (result.points, result.status) == (None, "infrastructure")
        assert "the GPU has fallen off the bus" in result.message
    assert judged.score is None
    assert judged.as_dict()["checks"]["q3-merge"]["points"] is None
    monkeypatch.undo()
    assert learners.hand_in().score == 26


def test_a_verdict_says_where_the_kernels_ran(learners: Any) -> None:
    result = learners.hand_in().checks["q3-merge"]
    assert {verdict.place for verdict in result.verdicts} == {kernels.describe()}
    assert result.message.endswith(f"pass on {kernels.describe()}.")


def test_trusted_names_are_the_instructors(whole_lesson: NotebookNode) -> None:
    imports = trusted_imports(whole_lesson)
    assert imports["torch"] == "import torch"
    assert imports["reference"] == "from kernels import reference"
    cells = {cell.id: cell for cell in whole_lesson.cells}
    assert [is_locked(cells[name]) for name in ("setup", "q3-merge", "q3-merge-code", "waste")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.slow
def test_the_command_prints_json(learners: Any, judge: Judge, tmp_path: Path) -> None:
    notebook = tmp_path / "answer.ipynb"
    nbformat.write(learners.notebook(q3_merge_code="def merge_states(a, b):\n    return a"), notebook)
    (tmp_path / "broken.ipynb").write_text("{")
    lesson = ROOT / "source" / "01_warm_up.py"
    command = [sys.executable, "-m", "autograder.judge", str(lesson), "--seed", "7"]
    done = subprocess.run(
        [*command, str(notebook), str(tmp_path / "broken.ipynb")], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["lesson"], result["seed"], result["sandbox"]) == ("01_warm_up", 7, "bubblewrap")
    judged = result["submissions"][str(notebook)]
    assert (judged["score"], judged["max_score"]) == (22, 26)
    merge = judged["checks"]["q3-merge"]
    assert set(merge) == {"points", "max_points", "status", "message", "misconception", "seconds"}
    assert (merge["points"], merge["max_points"], merge["status"]) == (0, 4, "wrong")
    assert "not JSON" in result["submissions"][str(tmp_path / "broken.ipynb")]["refused"]
