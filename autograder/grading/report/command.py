"""`autograder report LESSON`: prints what an instructor wants to know and writes it as a page and as CSV."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from autograder.grading.journal import write_whole
from autograder.grading.report.lines import as_csv
from autograder.grading.report.results import ReportError, gather
from autograder.grading.report.summary import summarise
from autograder.grading.report.terminal import as_text

FOLDER = Path("report")  # in the course's root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `autograder report`."""
    add = parser.add_argument
    add("lesson", metavar="LESSON", help="such as 01_warm_up")
    add("--course-dir", type=Path, metavar="DIR", help="nbgrader's course root, if not the current folder")
    add("--submissions", type=Path, metavar="DIR", help="where they were handed in, if not in submitted/")


def run(arguments: argparse.Namespace) -> int:
    """Does what `arguments` say. Returns 0, 1 when there is nothing to report, 2 for arguments that make no sense."""
    for name, folder in (("--course-dir", arguments.course_dir), ("--submissions", arguments.submissions)):
        if folder is not None and not folder.is_dir():
            print(f"{name}: {folder} is not a folder", file=sys.stderr)
            return 2
    submissions = arguments.submissions.resolve() if arguments.submissions else None
    os.chdir(arguments.course_dir or Path())
    try:
        summary = summarise(gather(Path.cwd(), arguments.lesson, submissions))
    except ReportError as error:
        print(error, file=sys.stderr)
        return 1
    # Only here: matplotlib is slow to load, and other commands need none.
    from autograder.grading.report.page import as_html

    FOLDER.mkdir(exist_ok=True)
    written = []
    for ending, text in (("html", as_html(summary)), ("csv", as_csv(summary))):
        path = FOLDER / f"{summary.lesson}.{ending}"
        write_whole(path, text)
        written.append(str(path.resolve()))
    print(as_text(summary, shutil.get_terminal_size((120, 24)).columns))
    print("\n" + "\n".join(written))
    return 0
