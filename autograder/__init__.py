"""Checks for the exercises of the course: beside the learner in the notebook, and in grading.

>>> import autograder
>>> autograder.check("build_metadata", build_metadata)      # doctest: +SKIP
✓ build_metadata: all 9 visible cases pass (CPU).
"""

from autograder.failure import CheckFailed, UnknownCheck
from autograder.learner import check, hint

__all__ = ["CheckFailed", "UnknownCheck", "check", "hint"]
