"""`python -m autograder.nbgrader_bridge LESSON SUBMITTED_DIRECTORY`: grades the learners named on standard input.

The course is the working directory. `autograder.grading` starts it and reads its answers.
"""

import argparse
import json
import os
import sys

from autograder.nbgrader_bridge.course import grade_one


def main(argv: list[str] | None = None) -> int:
    """Reads learners from standard input, one JSON string a line, and answers each with a line of JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m autograder.nbgrader_bridge", description="Grades submissions, one after the other."
    )
    parser.add_argument("lesson")
    parser.add_argument("submitted_directory", help="where the clean copies of the submissions are")
    arguments = parser.parse_args(argv)
    # Kernels inherit standard output. What they write there must not be taken for an answer.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            result = grade_one(arguments.lesson, json.loads(line), arguments.submitted_directory)
            print(json.dumps(result), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
