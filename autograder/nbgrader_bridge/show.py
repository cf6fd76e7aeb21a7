"""What formgrader and feedback show of a verdict: under each test its reason, under each of the learner's cells what it printed."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor

from autograder.nbgrader_bridge.submission import MARK, SubmissionError, course_of

if TYPE_CHECKING:
    from autograder.judge.judgement import CheckResult, Judgement

Resources = dict[str, Any]

ENTRY = "autograder_entry"  # in nbgrader's resources: the journal's entry, for SaveVerdicts


class ShowVerdicts(NbGraderPreprocessor):
    """In place of nbgrader's Execute: every output of the notebook is the judge's; what a learner saved is dropped."""

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        from autograder.grading.journal import Journal

        info = resources["nbgrader"]
        journal = Journal(Path(course_of(self).root), info["notebook"])
        key = nb.metadata.get(MARK)
        entry = journal.read(key) if isinstance(key, str) else None
        if entry is None:
            raise SubmissionError(
                f"the journal in {journal.folder} has lost this submission's verdict; autograde again"
            )
        resources["nbgrader"][ENTRY] = entry
        shown: set[str] = set()
        for cell in reversed(nb.cells):  # of several copies of a cell the last one was judged
            if cell.cell_type != "code":
                continue
            cell.outputs, cell.execution_count = [], None
            name = cell.metadata.get("nbgrader", {}).get("grade_id") or cell.metadata.get(MARK)
            if name is None or name in shown:
                continue
            shown.add(name)
            if name in entry.judgement.checks:
                cell.outputs = verdict_outputs(entry.judgement.checks[name], entry.sandbox)
            else:
                cell.outputs = printed_outputs(entry.judgement, name)
        return nb, resources


def verdict_outputs(result: CheckResult, sandbox: str) -> list[NotebookNode]:
    """Points and reason under a test cell; in red where points were lost or nobody could judge."""
    if result.points is None:
        head = f"No points yet, of {result.max_points:g}: a person has to look at this."
    else:
        head = f"{result.points:g} of {result.max_points:g} points."
    text = f"{head}\n{result.message}".rstrip()
    if sandbox == "none":
        text += "\nJudged without a sandbox."
    if result.points == result.max_points:
        return [new_output("stream", name="stdout", text=text + "\n")]
    return [new_output("error", ename=result.status, evalue=result.message, traceback=[text])]


def printed_outputs(judgement: Judgement, name: str) -> list[NotebookNode]:
    """What a learner's cell printed and drew when the judge ran it, and the error that it ended with."""
    printed, error = judgement.cells.get(name, ("", ""))
    outputs = [new_output("stream", name="stdout", text=printed)] if printed else []
    for image in judgement.images.get(name, ()):
        data = {"image/png": base64.b64encode(image).decode()}
        outputs.append(new_output("display_data", data=data))
    if error:
        kind, _, rest = error.partition(": ")
        if not kind.isidentifier():
            kind, rest = "Error", error
        outputs.append(new_output("error", ename=kind, evalue=rest, traceback=[error]))
    return outputs
