"""`autograder checks`: the checks with their grade ids and the mistakes that they name."""

from __future__ import annotations

import argparse
import sys

from autograder import registry
from autograder.failure import UnknownCheck


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `autograder checks`."""
    parser.add_argument("names", nargs="*", metavar="CHECK", help="a check or a grade id; all by default")


def run(arguments: argparse.Namespace) -> int:
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
