"""The committed comparison of stock nbgrader with the judge is whole, and its page is made from its numbers."""

import json

from bench.grading.hostile import render
from bench.grading.hostile_submissions import ROOT, attacks, expected

RESULT = json.loads((ROOT / "bench" / "results" / "hostile.json").read_text(encoding="utf-8"))


def test_the_page_is_made_from_the_result() -> None:
    assert (ROOT / "docs" / "stock-and-judge.md").read_text(encoding="utf-8") == render(RESULT)


def test_every_submission_was_graded_by_both_and_rightly_by_the_judge() -> None:
    rows = {row["name"]: row for row in RESULT["rows"]}
    assert list(rows) == [attack.name for attack in attacks()]
    for attack in attacks():
        row = rows[attack.name]
        assert row["catalogue"] == list(attack.catalogue)
        assert row["judge"]["points"] == row["expected"] == expected(attack)
        assert row["stock"]["ended"]
    # The honest submission beside each attack shows that stock nbgrader itself worked.
    assert sum(row["stock"]["next_learner"] == RESULT["max_score"] for row in rows.values()) > len(rows) // 2


def test_what_stock_nbgrader_loses_or_gives_away_stands_out() -> None:
    base = {"what": "A trick.", "catalogue": [1], "expected": {"a": 3, "b": 0}}
    judged = {"points": {"a": 3, "b": 0}, "status": "wrong", "flags": ["suspicious-text"], "seconds": 1}
    stock = {"ended": "finished", "seconds": 1, "autograded_bytes": 1}
    rows = [
        {
            **base,
            "name": "x",
            "judge": judged,
            "stock": {**stock, "points": {"a": 3, "b": 5}, "next_learner": 3},
        },
        {**base, "name": "y", "judge": judged, "stock": {**stock, "points": None, "next_learner": None}},
        {**base, "name": "z", "judge": judged, "stock": {**stock, "points": {"a": 3}, "next_learner": 3}},
    ]
    page = render({**RESULT, "rows": rows})
    assert "gives what was earned in 3 of 3 cases, stock nbgrader in 1." in page
    assert "| A trick. | 1 | 3 | **8** | 3 | wrong, *suspicious-text* |" in page
    assert "| **whole submission lost**, **the next learner's lost too** | 3 |" in page
    assert "| A trick. | 1 | 3 | 3 | 3 | wrong, *suspicious-text* |" in page
