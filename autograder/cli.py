"""The `autograder` command: build lessons, grade a class, report on it, list the checks."""

import argparse
import sys

from autograder import build, registry
from autograder.failure import UnknownCheck
from autograder.grading import command as grading
from autograder.grading import replay
from autograder.grading.report import command as report


def _checks(arguments: argparse.Namespace) -> int:
    """Prints each check with its grade id, the mistakes that it names and the other roads that it accepts."""
    try:
        found = [registry.get(name) for name in arguments.names or registry.names()]
    except UnknownCheck as error:
        print(error, file=sys.stderr)
        return 2
    for check in found:
        credit = ", partial credit" if check.partial else ""
        print(f"{check.name}  (grade id {check.grade_id}; takes {', '.join(check.parts)}{credit})")
        for misconception in check.misconceptions:
            print(f"    {misconception.name:34} {misconception.message}")
        variants = ", ".join(variant.name for variant in check.right_variants) or "none"
        print(f"    right by another road: {variants}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Runs a subcommand and returns its exit status."""
    parser = argparse.ArgumentParser(prog="autograder", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    text = "make the instructor's notebooks and release/ from source/"
    command = commands.add_parser("build", help=text, description=text)
    build.add_arguments(command)
    command.set_defaults(run=build.run)

    text = "judge a class, fill nbgrader's gradebook and feedback, say who got what and why"
    command = commands.add_parser("grade", help=text, description=text)
    grading.add_arguments(command)
    command.set_defaults(run=grading.run)

    text = "say how a graded class did: points, mistakes, time, and whom to look at"
    command = commands.add_parser("report", help=text, description=text)
    report.add_arguments(command)
    command.set_defaults(run=report.run)

    text = "judge a submission once more on the hidden cases of its verdict, and say whether that is the same"
    command = commands.add_parser("replay", help=text, description=text)
    replay.add_arguments(command)
    command.set_defaults(run=replay.run)

    text = "list the checks with their grade ids and the mistakes that they name"
    command = commands.add_parser("checks", help=text, description=text)
    command.add_argument("names", nargs="*", metavar="CHECK", help="a check or a grade id; all by default")
    command.set_defaults(run=_checks)

    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
