"""The one package that imports nbgrader: plug-ins that its configuration names, and the calls that grading makes.

The plug-ins are set in `nbgrader_config.py`, so they hold for `nbgrader autograde`, `nbgrader generate_feedback` and the
formgrader pages as well as for `autograder grade`:

- `SubmissionExporter` opens what a learner handed in, and takes an earlier verdict back where there is none for this one.
- `JudgeSubmission` gets the verdict, from the journal or by judging now.
- `RestoreCells` gives every cell that nbgrader knows its metadata, type and place back.
- `ShowVerdicts` writes the verdicts, and what the learner's cells printed, into the notebook.
- `SaveVerdicts` writes the points into the gradebook.
- `RedactForFeedback` takes hidden tests out of what a learner is handed back.
- `CollectSafely` collects from the exchange, and sets aside what is no submission.
- `pages.markdown2html` shows learners' text without scripts; `mends.mend_nbgrader` mends what no setting reaches.

nbgrader runs no cell of a submission. `python -m autograder.nbgrader_bridge LESSON SUBMITTED_DIRECTORY` grades the learners
whom it is told on standard input.
"""

from autograder.nbgrader_bridge.collect import SET_ASIDE, CollectSafely
from autograder.nbgrader_bridge.course import (
    directories,
    exercises,
    generate_assignment,
    grade_one,
    grades,
    judges,
    open_course,
    parse_timestamp,
    roster,
    withhold,
)
from autograder.nbgrader_bridge.new_gradebook import make_gradebook
from autograder.nbgrader_bridge.redact import RedactForFeedback
from autograder.nbgrader_bridge.restore import REPAIRS, RestoreCells
from autograder.nbgrader_bridge.save import SaveVerdicts
from autograder.nbgrader_bridge.scores import Scores, repairs, scores, seconds_late
from autograder.nbgrader_bridge.show import ShowVerdicts
from autograder.nbgrader_bridge.submission import JudgeSubmission, SubmissionError, SubmissionExporter

__all__ = [
    "REPAIRS",
    "SET_ASIDE",
    "CollectSafely",
    "JudgeSubmission",
    "RedactForFeedback",
    "RestoreCells",
    "SaveVerdicts",
    "Scores",
    "ShowVerdicts",
    "SubmissionError",
    "SubmissionExporter",
    "directories",
    "exercises",
    "generate_assignment",
    "grade_one",
    "grades",
    "judges",
    "make_gradebook",
    "open_course",
    "parse_timestamp",
    "repairs",
    "roster",
    "scores",
    "seconds_late",
    "withhold",
]
