"""Judges notebook files: `python -m autograder.judge source/01_warm_up.py NOTEBOOK...` prints the results as JSON."""

import argparse
import json
import sys
from pathlib import Path

from autograder.judge.judge import Judge
from autograder.judge.sandbox import SandboxLost, SandboxUnavailable
from autograder.lesson import LessonError, read_lesson
from kernels import runtime


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m autograder.judge", description=__doc__)
    parser.add_argument("lesson", type=Path, help="the lesson's text, source/NN_name.py")
    parser.add_argument("notebooks", type=Path, nargs="+", metavar="NOTEBOOK")
    parser.add_argument("--seed", type=int, help="repeat the hidden cases of an earlier grading")
    parser.add_argument("--unsafe", action="store_true", help="work without a sandbox where none can be made")
    arguments = parser.parse_args(argv)
    try:
        with Judge(read_lesson(arguments.lesson), seed=arguments.seed, unsafe=arguments.unsafe) as judge:
            submissions = {
                str(path): judge.judge(path.read_bytes()).as_dict() for path in arguments.notebooks
            }
            result = {
                "lesson": arguments.lesson.stem,
                "device": runtime.describe(),
                "sandbox": judge.sandbox_name,
                "seed": judge.seed,
                "submissions": submissions,
            }
    except (SandboxUnavailable, SandboxLost, LessonError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    json.dump(result, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
