"""What an answer of the sample class is worth."""

from autograder.grading.sample_answers import Sample
from autograder.registry import Check


def points_of(sample: Sample, check: Check, max_points: float) -> float:
    """A mistake costs the whole exercise; with partial credit, a point for each answer that it leaves wrong."""
    if check.grade_id not in sample.mistakes:
        return max_points
    if not check.partial:
        return 0.0
    (name,) = check.parts
    wrong = sum(sample.parts[name].get(key) != value for key, value in check.solution[name].items())
    assert wrong
    return max_points - wrong
