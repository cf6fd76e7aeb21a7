"""The `course` command: `course doctor`, `course start [LESSON ...]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from course.folder import CourseNotFound, find_root


def _start(lessons: Sequence[str], print_path: bool) -> int:
    from course.start import resolve, start

    try:
        root = find_root()
        if print_path:
            name = resolve(root, lessons)[0]
            print(f"work/{name}/{name}.ipynb")
            return 0
        for copied in start(root, lessons):
            state = "copied to" if copied.new else "yours, left as it is, in"
            print(f"{copied.name}: {state} {root / 'work' / copied.name}")
            if copied.new and copied.kept:
                print(f"  left as they are: {', '.join(copied.kept)}")
    except (CourseNotFound, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    parser = argparse.ArgumentParser(prog="course", description="Attention backends: the learner's commands.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("doctor", help="what this machine can do, and what to do about what is missing")
    start = commands.add_parser("start", help="copy the lessons to work/, where they are yours")
    start.add_argument("lessons", nargs="*", metavar="LESSON", help="such as 01_warm_up or 1; all by default")
    start.add_argument(
        "--print-path", action="store_true", help="print the first notebook's path and copy nothing"
    )
    arguments = parser.parse_args(argv)
    if arguments.command == "doctor":
        from course import doctor

        return doctor.main()
    return _start(arguments.lessons, arguments.print_path)


if __name__ == "__main__":
    sys.exit(main())
