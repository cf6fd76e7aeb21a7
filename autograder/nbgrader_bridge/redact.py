"""What leaves an autograded notebook before a learner gets it back."""

import re
from typing import Any

from nbformat.notebooknode import NotebookNode
from nbgrader.preprocessors import NbGraderPreprocessor

from autograder.judge.rebuild import HIDDEN
from autograder.nbgrader_bridge.submission import MARK

Resources = dict[str, Any]

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
KEPT = ("kernelspec", "language_info")  # of the notebook's metadata
# Characters: a shorter line, such as a bracket, is no secret, and stands in many a learner's output.
TELLING = 8


class RedactForFeedback(NbGraderPreprocessor):
    """First in `GenerateFeedback.preprocessors`: no hidden test, and nothing that is the instructor's, reaches the learner.

    The hidden region leaves the test cell's source, and every line of it leaves every text output of the notebook. Notes
    for the instructor go, and with them the notebook's metadata: the journal's key, and the state of widgets, whose scripts
    a feedback file does not have.
    """

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        nb.metadata = NotebookNode({key: nb.metadata[key] for key in KEPT if key in nb.metadata})
        hidden: set[str] = set()
        for cell in nb.cells:
            cell.metadata.pop(MARK, None)
            if cell.cell_type == "code":
                for body in HIDDEN.findall(cell.source):
                    hidden.update(line.strip() for line in body.splitlines() if len(line.strip()) >= TELLING)
                cell.source = HIDDEN.sub("", cell.source).rstrip("\n")
        for cell in nb.cells:
            if "outputs" in cell:
                cell.outputs = [output for output in cell.outputs if MARK not in output.get("metadata", {})]
                for output in cell.outputs:
                    _redact_output(output, hidden)
        return nb, resources


def _redact_output(output: NotebookNode, hidden: set[str]) -> None:
    if output.output_type == "stream":
        output.text = _without(output.text, hidden)
    elif output.output_type == "error":
        output.evalue = _without(output.evalue, hidden)
        output.traceback = [_without(entry, hidden) for entry in output.traceback]
    elif "data" in output:
        output.data.pop("application/vnd.jupyter.widget-view+json", None)
        for kind, text in output.data.items():
            if isinstance(text, str) and not kind.startswith("image/"):
                output.data[kind] = _without(text, hidden)


def _without(text: str, hidden: set[str]) -> str:
    """`text` without the lines that hold a hidden line or a hidden region's delimiter. Colours do not hide them."""

    def shown(line: str) -> bool:
        plain = ANSI.sub("", line)
        return "HIDDEN TESTS" not in plain and not any(secret in plain for secret in hidden)

    return "\n".join(line for line in text.split("\n") if shown(line))
