"""Sample submissions: every mistake once, each as a learner would have typed it."""

from pathlib import Path

import jupytext
import nbformat
import pytest
import torch

from autograder import cli, registry
from autograder.examine import examine
from autograder.grading.sample_answers import samples, text_of
from autograder.grading.sample_class import apply, make
from autograder.suite import open_suite

ROOT = Path(__file__).resolve().parents[3]
GRADE_IDS = [registry.get(name).grade_id for name in registry.names()]


def test_every_misconception_and_every_right_variant_has_a_learner() -> None:
    made = samples(GRADE_IDS)
    assert len({sample.learner for sample in made}) == len(made)
    for check in map(registry.get, registry.names()):
        mistakes = [sample.mistakes.get(check.grade_id) for sample in made]
        for misconception in check.misconceptions:
            assert mistakes.count(misconception.name) == 1
        for variant in check.right_variants:
            assert any(
                not sample.mistakes
                and all(sample.parts[name] is part for name, part in variant.parts.items())
                for sample in made
            )


@pytest.mark.parametrize("name", ["online_softmax_update", "merge_states"])
def test_the_text_of_an_answer_stands_on_its_own(name: str) -> None:
    """What is written into the notebook behaves as the registered function: same verdict, same mistake."""
    check = registry.get(name)
    suite = open_suite("visible")
    for misconception in check.misconceptions:
        namespace: dict[str, object] = {"torch": torch}
        for part, value in check.complete(misconception.parts).items():
            exec(text_of(part, value), namespace)
        verdict = examine(check, {part: namespace[part] for part in check.parts}, suite)
        assert verdict.misconception == misconception.name


_LOCK = object()


def _uses_an_object_of_its_module() -> object:
    return _LOCK


def test_text_of_plain_values_and_of_what_cannot_be_written() -> None:
    assert text_of("answer", {"a": "none"}) == "answer = {'a': 'none'}"
    with pytest.raises(ValueError, match="_LOCK, which cannot be written into a notebook"):
        text_of("f", _uses_an_object_of_its_module)


def _notebook() -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_code_cell(name, id=name, metadata={"nbgrader": {"points": 1}}) for name in "abc"]
    return nbformat.v4.new_notebook(cells=cells)


def test_edits_replace_delete_add_and_damage_cells() -> None:
    edits = """# a remark about this learner

# %% a
x = 1

# %% own
y = 2

# %% b delete=true

# %% c nbgrader={"points": 9}
"""
    cells = apply(edits, _notebook()).cells
    assert [(cell.id, cell.source) for cell in cells] == [("a", "x = 1"), ("own", "y = 2"), ("c", "c")]
    assert cells[2].metadata.nbgrader.points == 9


def test_kept_submissions_speak_of_the_lessons_own_cells() -> None:
    """A cell that was renamed in the lesson must not silently become a cell of the learner's own."""
    for lesson in sorted((ROOT / "tests" / "submissions").glob("[0-9]*")):
        source = jupytext.reads(
            (ROOT / "source" / f"{lesson.name}.py").read_text(encoding="utf-8"), "py:percent"
        )
        titles = {cell.metadata.get("title") for cell in source.cells}
        for path in lesson.glob("*.py"):
            for cell in jupytext.reads(path.read_text(encoding="utf-8"), "py:percent").cells:
                title = cell.metadata.get("title")
                assert title is None or title == "scratch" or title in titles, f"{path.name}: {title}"


def test_a_folder_that_is_no_sample_class_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(ValueError, match="no sample class"):
        make(tmp_path, ROOT)
    assert (tmp_path / "thesis.txt").exists()


def test_the_command_lists_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["checks"]) == 0
    said = capsys.readouterr().out
    for check in map(registry.get, registry.names()):
        assert f"{check.name}  (grade id {check.grade_id}; takes {', '.join(check.parts)}" in said
        for item in (*check.misconceptions, *check.right_variants):
            assert item.name in said
    assert cli.main(["checks", "q2-metadat"]) == 2
    assert 'Did you mean "q2-metadata"?' in capsys.readouterr().err
