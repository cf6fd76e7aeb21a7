"""The table of the catalogue's entries names all of them, and tests and files that are there."""

import re
from pathlib import Path

from bench.grading.hostile_submissions import attacks

HERE = Path(__file__).parent
ROW = re.compile(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", re.M)
ROWS = {
    int(number): text for number, text in ROW.findall((HERE / "catalogue.md").read_text(encoding="utf-8"))
}


def test_every_entry_has_a_row() -> None:
    assert list(ROWS) == list(range(1, 55))


def test_the_tests_that_are_named_are_there() -> None:
    for number, text in ROWS.items():
        named = re.findall(r"([\w/]+\.py)::(test_\w+)", text)
        assert named or "hostile/" in text, number
        for file, test in named:
            source = (HERE.parent / file).read_text(encoding="utf-8")
            assert f"def {test}(" in source, (number, file, test)


def test_each_hostile_file_stands_in_the_rows_of_its_numbers() -> None:
    listed = {
        (number, name) for number, text in ROWS.items() for name in re.findall(r"hostile/([\w-]+)", text)
    }
    assert listed == {(number, attack.name) for attack in attacks() for number in attack.catalogue}
    assert len(attacks()) >= 20
