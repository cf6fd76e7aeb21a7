"""nbgrader's configuration for this folder: `nbgrader COMMAND` here, Validate and formgrader in JupyterLab started here."""

import os
from contextlib import suppress
from pathlib import Path

from autograder.nbgrader_bridge.mends import mend_nbgrader

c = get_config()  # noqa: F821  nbgrader hands it to this file

# --- The course -------------------------------------------------------------------------------------------------
c.CourseDirectory.course_id = "attention-backends"
# Beside a lesson or a submission these are leftovers, never part of it.
c.CourseDirectory.ignore = [
    ".ipynb_checkpoints",
    "__pycache__",
    "*.pyc",
    ".hypothesis",
    ".DS_Store",
    "feedback",
]

# --- Handing out and handing in (nbgrader's exchange) ---------------------------------------------------------------
# One folder that the instructor and every learner can write to; the environment variable NBGRADER_EXCHANGE names it.
# Without it, exchange/ here: enough for one machine, and to try it all out alone.
exchange = os.environ.get("NBGRADER_EXCHANGE")
if not exchange:
    folder = Path(__file__).resolve().parent / "exchange"
    with suppress(OSError):  # where this folder is read-only nbgrader says so itself
        folder.mkdir(exist_ok=True)
    exchange = str(folder)
c.Exchange.root = exchange

# --- What a learner finds where the solution was ------------------------------------------------------------------
c.ClearSolutions.code_stub = {"python": 'raise NotImplementedError("Your code here. Then delete this line.")'}
c.ClearSolutions.text_stub = "*Your answer here. Then delete this line.*"

# --- Running a notebook (Validate) --------------------------------------------------------------------------------
# Seconds for one cell. Triton's interpreter is slow on a small machine; a loop that never ends must still end.
c.Execute.timeout = 300
c.Execute.interrupt_on_timeout = True
# `nbgrader validate` cuts longer lines; our messages have up to 112 characters.
c.Validator.width = 120
# Notebooks inherit it. Triton's interpreter multiplies many small matrices, and threads that wait for each other make
# that up to 1000 times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# --- Grading ------------------------------------------------------------------------------------------------------
# Learners' code is run by the judge (autograder/judge), never by nbgrader. Plug-ins of autograder/nbgrader_bridge are named
# here, and its __init__.py says what each does; the others are nbgrader's own, in nbgrader's order.
mend_nbgrader()
# A submission's time is the file system's. For an exchange that was copied: c.CollectSafely.delay = None
c.ExchangeFactory.collect = "autograder.nbgrader_bridge.CollectSafely"
c.Autograde.exporter_class = "autograder.nbgrader_bridge.SubmissionExporter"
c.Autograde.sanitize_preprocessors = [
    "autograder.nbgrader_bridge.JudgeSubmission",
    "autograder.nbgrader_bridge.RestoreCells",
    "nbgrader.preprocessors.ClearOutput",
    "nbgrader.preprocessors.DeduplicateIds",
    "nbgrader.preprocessors.OverwriteKernelspec",
    "nbgrader.preprocessors.OverwriteCells",
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.Autograde.autograde_preprocessors = [
    "autograder.nbgrader_bridge.ShowVerdicts",  # for nbgrader's Execute
    "nbgrader.preprocessors.IgnorePattern",
    "nbconvert.preprocessors.ClearMetadataPreprocessor",
    "nbgrader.preprocessors.LimitOutput",
    "autograder.nbgrader_bridge.SaveVerdicts",  # for nbgrader's SaveAutoGrades
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.GenerateFeedback.preprocessors.prepend(["autograder.nbgrader_bridge.RedactForFeedback"])
# formgrader's pages and feedback: learners' text without scripts.
c.HTMLExporter.filters = {"markdown2html": "autograder.nbgrader_bridge.pages.markdown2html"}
