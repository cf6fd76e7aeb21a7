"""The verdict's points in nbgrader's gradebook, and what becomes of points that a person gave."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_output
from nbgrader import utils
from nbgrader.api import Grade, Gradebook
from nbgrader.preprocessors import SaveAutoGrades

from autograder.nbgrader_bridge.show import ENTRY
from autograder.nbgrader_bridge.submission import MARK, course_of

Resources = dict[str, Any]

NOTE = "note for the instructor"  # an output with this mark is left out of feedback


SAVED = "autograder_saved"  # notebook metadata: the points are in the gradebook


class SaveVerdicts(SaveAutoGrades):
    """In place of nbgrader's SaveAutoGrades: points of tests come from the journal, and no cell's output says anything.

    Every grade that the gradebook has of this notebook is visited, also where the cell is gone. Without a verdict there is
    no score and a person has to look: an earlier submission's points never stay.

    Points that a person gave stay. Where the submission is not the one that they were given for, nbgrader lists it for
    manual grading again, and a note stands under the test.
    """

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        info = resources["nbgrader"]
        self.notebook_id, self.assignment_id = info["notebook"], info["assignment"]
        self.student_id = info["student"]
        self._entry = info.pop(ENTRY)
        record = _Record(Path(course_of(self).root), self.notebook_id, self.student_id)
        cells = {
            cell.metadata.nbgrader.grade_id: cell
            for cell in nb.cells
            if cell.metadata.get("nbgrader", {}).get("grade_id")
        }
        graded_for: dict[str, str] = {}
        self.gradebook = Gradebook(info["db_url"])
        with self.gradebook:
            submission = self.gradebook.find_submission_notebook(
                self.notebook_id, self.assignment_id, self.student_id
            )
            by_hand = {cell.name for cell in submission.notebook.solution_cells}
            by_hand |= {cell.name for cell in submission.notebook.task_cells}
            for grade in submission.grades:
                cell = cells.get(grade.name)
                answer = self._entry.key if grade.name not in by_hand else _digest(cell)
                graded_for[grade.name] = answer
                self._save(
                    grade, cell, grade.name in by_hand, changed=record.answers.get(grade.name) != answer
                )
            for cell in cells.values():
                if utils.is_solution(cell) or utils.is_task(cell):
                    self._add_comment(cell, resources)
            self.gradebook.db.commit()
        record.write(graded_for)
        nb.metadata[SAVED] = True
        return nb, resources

    def _save(self, grade: Grade, cell: NotebookNode | None, by_hand: bool, *, changed: bool) -> None:
        settled = grade.manual_score is not None and not grade.needs_manual_grade
        if by_hand:
            # No answer earns 0, as nbgrader has it; an answer waits for a person.
            untouched = (
                cell is not None and utils.is_grade(cell) and utils.determine_grade(cell, self.log)[0] == 0
            )
            grade.auto_score = 0.0 if cell is None or untouched else None
        else:
            result = self._entry.judgement.checks.get(grade.name)
            grade.auto_score = None if result is None else result.points
            score = (
                "no points"
                if grade.auto_score is None
                else f"{grade.auto_score:g} of {grade.max_score:g} points"
            )
            self.log.info("%s, %s: %s", self.student_id, grade.name, score)
        if grade.manual_score is None:
            grade.needs_manual_grade = grade.auto_score is None
            return
        grade.needs_manual_grade = changed or not settled
        if changed and not by_hand and cell is not None:
            now = "no points yet" if grade.auto_score is None else f"{grade.auto_score:g}"
            text = (
                f"A person gave {grade.manual_score:g} points here for an earlier submission; the judge gives {now} for this "
                "one. The person's points count until you change them."
            )
            note = new_output("display_data", data={"text/plain": text}, metadata={MARK: NOTE})
            cell.outputs.append(note)


class _Record:
    """For which answers the grades of a learner's notebook were saved last, by grade id: `.autograder/saved/LESSON/LEARNER.json`."""

    def __init__(self, course: Path, notebook: str, learner: str) -> None:
        self._path = course / ".autograder" / "saved" / notebook / f"{learner}.json"
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        self.answers: dict[str, str] = found if isinstance(found, dict) else {}

    def write(self, answers: dict[str, str]) -> None:
        from autograder.grading.journal import write_whole

        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, json.dumps(answers, indent=1) + "\n")


def _digest(cell: NotebookNode | None) -> str:
    return "" if cell is None else hashlib.sha256(cell.source.encode()).hexdigest()
