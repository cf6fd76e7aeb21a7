"""The plug-ins on notebooks in memory: what a verdict looks like, and what a learner is not to see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import nbformat
import pytest
from nbformat import NotebookNode

from autograder.judge.judgement import CheckResult, Judgement
from autograder.nbgrader_bridge import RedactForFeedback
from autograder.nbgrader_bridge.mends import read_timestamp
from autograder.nbgrader_bridge.pages import as_text, markdown2html
from autograder.nbgrader_bridge.save import NOTE
from autograder.nbgrader_bridge.show import printed_outputs, verdict_outputs
from autograder.nbgrader_bridge.submission import MARK

TEST = """check(f)
### BEGIN HIDDEN TESTS
check(f, suite="hidden")
assert f(1234) == 5
)
### END HIDDEN TESTS"""


def _test_cell(*outputs: dict[str, Any]) -> NotebookNode:
    cell = nbformat.v4.new_code_cell(TEST, id="q")
    cell.outputs = [nbformat.v4.new_output(**output) for output in outputs]
    cell.metadata["nbgrader"] = NotebookNode(
        grade_id="q", grade=True, solution=False, locked=True, task=False, points=4, schema_version=3
    )
    return cell


def _result(points: float | None, status: str, message: str) -> CheckResult:
    return CheckResult(points, 4.0, status, message, None, 0.1)


def test_a_verdict_reads_as_points_and_reason() -> None:
    (passed,) = verdict_outputs(_result(4.0, "passed", "✓ f: all 12 hidden cases pass."), "bubblewrap")
    assert (passed.output_type, passed.text) == (
        "stream",
        "4 of 4 points.\n✓ f: all 12 hidden cases pass.\n",
    )
    (wrong,) = verdict_outputs(_result(1.5, "wrong", "✗ f: no."), "bubblewrap")
    assert (wrong.output_type, wrong.traceback) == ("error", ["1.5 of 4 points.\n✗ f: no."])
    (nobody,) = verdict_outputs(_result(None, "infrastructure", "the GPU is gone"), "bubblewrap")
    assert nobody.traceback == ["No points yet, of 4: a person has to look at this.\nthe GPU is gone"]
    (unsafe,) = verdict_outputs(_result(4.0, "passed", ""), "none")
    assert unsafe.text == "4 of 4 points.\nJudged without a sandbox.\n"


def test_a_cell_shows_what_it_printed_and_how_it_ended() -> None:
    cells = {"a": ("hi\n", "ValueError: no: never"), "b": ("", "your code did not finish within 5 s")}
    judgement = Judgement(None, {}, cells=cells, images={"a": (b"png",)})
    printed, drawn, error = printed_outputs(judgement, "a")
    assert drawn.data == {"image/png": "cG5n"}
    assert (printed.text, error.ename, error.evalue) == ("hi\n", "ValueError", "no: never")
    (fault,) = printed_outputs(judgement, "b")
    assert fault.traceback == ["your code did not finish within 5 s"]
    assert printed_outputs(judgement, "c") == []


def test_feedback_loses_hidden_tests_wherever_they_show() -> None:
    coloured = '\x1b[32m      3\x1b[39m check(f, suite=\x1b[33m"hidden"\x1b[39m)'
    failing = _test_cell(
        {
            "output_type": "error",
            "ename": "NameError",
            "evalue": "name 'f' is not defined",
            "traceback": [f"----> 1 check(f)\n      2 ### BEGIN HIDDEN TESTS\n{coloured}", "NameError: 'f'"],
        }
    )
    spying = nbformat.v4.new_code_cell("print(In[-1])")
    spying.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text=f"caught: (1)\n{TEST}\n"),
        nbformat.v4.new_output("display_data", data={"text/html": f"<pre>{TEST}</pre>", "text/plain": TEST}),
    ]
    notebook = nbformat.v4.new_notebook(cells=[failing, spying])
    RedactForFeedback().preprocess(notebook, {})
    text = nbformat.writes(notebook)
    assert failing.source == "check(f)"
    for secret in ("HIDDEN TESTS", "1234", "suite="):
        assert secret not in text
    assert "----> 1 check(f)" in text
    assert "NameError: 'f'" in text
    assert "caught: (1)" in text  # a hidden line that is a bracket takes no other line along


def test_feedback_has_nothing_of_the_instructors() -> None:
    note = {"output_type": "display_data", "data": {"text/plain": "5 points"}, "metadata": {MARK: NOTE}}
    cell = _test_cell(note, {"output_type": "stream", "name": "stdout", "text": "4 of 4 points."})
    cell.metadata[MARK] = "q"
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={MARK: "ab12", "autograder_repairs": ["x"]})
    RedactForFeedback().preprocess(notebook, {})
    assert [output.output_type for output in cell.outputs] == ["stream"]
    assert MARK not in cell.metadata
    assert notebook.metadata == {}


def test_feedback_shows_a_widgets_table_and_not_its_empty_frame() -> None:
    cell = nbformat.v4.new_code_cell("widget")
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/html": "<table></table>"}
    cell.outputs = [nbformat.v4.new_output("display_data", data=view)]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
    RedactForFeedback().preprocess(notebook, {})
    assert cell.outputs[0].data == {"text/html": "<table></table>"}
    assert "widgets" not in notebook.metadata


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-45", "9" * 400, "0000-00-00", "\0", "\udcff"])
def test_a_date_that_is_none_is_no_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "timestamp.txt"
    path.write_bytes(text.encode(errors="surrogateescape"))
    moment, problem = read_timestamp(path)
    assert moment is None
    assert "holds no date" in problem


def test_a_date_is_read_from_a_regular_file_only(tmp_path: Path) -> None:
    path = tmp_path / "timestamp.txt"
    assert read_timestamp(path) == (None, "")
    os.mkfifo(path)
    assert read_timestamp(path)[0] is None  # and does not wait for a writer
    path.unlink()
    path.symlink_to("/dev/zero")
    assert read_timestamp(path)[0] is None
    path.unlink()
    path.write_text("2026-11-20 12:00:00.5 UTC")
    assert str(read_timestamp(path)[0]) == "2026-11-20 12:00:00.500000"


FAULTS = """
import sys
from pathlib import Path
from nbgrader.apps import NbGraderAPI
from nbgrader.converters.base import find_all_files
from nbgrader.coursedir import CourseDirectory
for call in (
    lambda: CourseDirectory().get_existing_timestamp("submitted/a/x"),
    lambda: NbGraderAPI.get_submitted_timestamp(type("Api", (), {"coursedir": CourseDirectory()})(), "x", "a"),
):
    try:
        call()
    except Exception as error:
        print(type(error).__name__)
print([Path(name).name for name in find_all_files("submitted/a/x") if "link" in name])
"""


def test_nbgrader_itself_still_has_the_faults_that_are_mended(tmp_path: Path) -> None:
    """When this fails after an update of nbgrader, mends.py may go."""
    folder = tmp_path / "submitted" / "a" / "x"
    folder.mkdir(parents=True)
    (folder / "timestamp.txt").write_text("yesterday")
    (folder / "link").symlink_to("/etc/hostname")
    command = [sys.executable, "-c", FAULTS]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["AttributeError", "ParserError", "['link']"]


HOSTILE_TEXT = """\
# Heading
A **bold** word, `x < y`, $a < b$ and [a link](https://example.org).

> quoted

| a | b |
| - | - |
| 1 | 2 |

<details><summary>fold</summary>inside</details>

```python
def f(x): return 1
```

![pasted](attachment:p.png)

<script>hacked()</script>
<img src=x onerror="hacked()"><svg onload="hacked()"></svg>
<a href="javascript:hacked()">press</a> <a href="data:text/html,<script>hacked()</script>">press</a>
[press](javascript:hacked) [press](hacked.html) [press](files/hacked.html) <iframe srcdoc="<script>hacked()</script>"></iframe>
<input id="q" class="score" value="99"><span id="q" class="score tabbable">99</span>
<style>body { display: none }</style><form action="/formgrader/api"></form>
"""


def test_markdown_keeps_its_form_and_loses_what_acts() -> None:
    picture = {"p.png": {"image/png": "iVBORw0KGgo="}}
    cell = nbformat.v4.new_markdown_cell(HOSTILE_TEXT, attachments=picture)
    environment = jinja2.Environment()
    environment.filters["markdown2html"] = markdown2html
    page = environment.from_string("{{ cell.source | markdown2html }}").render(cell=cell)
    for kept in (
        "<h1>Heading",
        "<strong>bold</strong>",
        "x &lt; y",
        "$a &lt; b$",
        '<a href="https://example.org">a link</a>',
        "<blockquote>",
        "<td>1</td>",
        "<details><summary>fold</summary>",
        'class="k">def</span>',
        'src="data:image/png;base64,iVBORw0KGgo="',
    ):
        assert kept in page
    for gone in (
        "<script",
        "onerror",
        "onload",
        "<svg",
        "javascript:",
        "hacked.html",
        "data:text",
        "<iframe",
        "<input",
        "<style",
    ):
        assert gone not in page
    assert " id=" not in page
    assert "score" not in page.replace(">99<", "")
    assert "<form" not in page


def test_a_raw_cell_is_shown_as_text() -> None:
    cell = nbformat.v4.new_raw_cell("<script>hacked()</script>\n\nmore")
    as_text(cell)
    environment = jinja2.Environment()
    environment.filters["markdown2html"] = markdown2html
    page = environment.from_string("{{ cell.source | markdown2html }}").render(cell=cell)
    assert page.strip().startswith("<pre><code>&lt;script&gt;hacked()&lt;/script&gt;")
