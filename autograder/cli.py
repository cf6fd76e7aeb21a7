"""The `autograder` command: build lessons, grade a class, report on it, replay a verdict, list the checks."""

import argparse
import sys
from importlib import import_module

from autograder import quick_start  # noqa: F401  before anything reads notebooks

# Subcommand -> the module with its `add_arguments` and `run`, and what it does. Only the one that is asked for is loaded:
# torch and nbgrader take a second each.
COMMANDS = {
    "build": ("autograder.build", "make the instructor's notebooks and release/ from source/"),
    "grade": (
        "autograder.grading.command",
        "judge a class, fill nbgrader's gradebook and feedback, say who got what and why",
    ),
    "report": (
        "autograder.grading.report.command",
        "say how a graded class did: points, mistakes, time, and whom to look at",
    ),
    "replay": (
        "autograder.grading.replay",
        "judge a submission once more on the hidden cases of its verdict, and say whether that is the same",
    ),
    "checks": (
        "autograder.list_checks",
        "list the checks with their grade ids and the mistakes that they name",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Runs a subcommand and returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="autograder", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name in argv[:1]:
            loaded = import_module(module)
            loaded.add_arguments(command)
            command.set_defaults(run=loaded.run)
    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
