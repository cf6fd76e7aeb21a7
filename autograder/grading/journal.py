"""The journal: each verdict is on disk as soon as it falls, so a killed grading loses nothing and judges nothing twice.

One file for a submission's content in `.autograder/journal/LESSON/`, `KEY.json`. The key is made of all that a verdict
depends on: the cells that run, in the lesson's own words and the learner's, and the code that judges them. Beside it lies
`KEY.ipynb`, what was judged without its outputs: a verdict can be replayed when the learner has long handed in something else.
A file is complete or absent, never half written.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from autograder.judge.judgement import Judgement
from autograder.judge.rebuild import Rebuilt

FOLDER = Path(".autograder") / "journal"  # in the course's root
SCHEMA = 1
_PACKAGES = ("kernels", "course", "autograder")
_NO_VERDICTS_IN = ("grading", "nbgrader_bridge")  # parts of autograder that no verdict depends on


@dataclass(frozen=True)
class Entry:
    """A verdict in the journal.

    grading: the public number of the grading that it fell in (`autograder.grading.secret`). device: where the kernels ran,
    `kernels.runtime.describe()`. sandbox: "bubblewrap", or "none" for a grading with --unsafe. moment: when, ISO 8601 UTC.
    earlier: the tests whose result is kept from an earlier grading, with its number: the others were judged again alone.
    """

    key: str
    lesson: str
    grading: int
    device: str
    sandbox: str
    moment: str
    judgement: Judgement
    earlier: Mapping[str, int] = field(default_factory=dict)

    def grading_of(self, test: str) -> int:
        """The number of the grading that a test's result fell in."""
        return self.earlier.get(test, self.grading)

    @property
    def is_final(self) -> bool:
        """Whether every test has a verdict. One that the machine prevented is judged again in the next grading."""
        return all(result.points is not None for result in self.judgement.checks.values())


@cache
def code_stamp() -> str:
    """Changes with the code that verdicts depend on: the kernels, the checks, the judge."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            place = path.relative_to(root)
            if package != "autograder" or place.parts[1].removesuffix(".py") not in _NO_VERDICTS_IN:
                digest.update(f"{place}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def submission_key(rebuilt: Rebuilt) -> str:
    """The journal's key of a submission: equal for equal content, whoever handed it in."""
    cells = [[cell.name, cell.source, cell.points, cell.untouched] for cell in rebuilt.cells]
    text = json.dumps([SCHEMA, code_stamp(), cells, rebuilt.notes])
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """The verdicts of one lesson. Several processes may write to it at once."""

    def __init__(self, course: Path, lesson: str) -> None:
        self.folder = course / FOLDER / lesson

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def read(self, key: str) -> Entry | None:
        """The entry with this key; None where there is none, or none that can be read."""
        return read_entry(self.path(key))

    def submission(self, key: str) -> Path:
        """Where the submission lies that the entry with this key is about."""
        return self.folder / f"{key}.ipynb"

    def write(self, entry: Entry, submitted: bytes) -> None:
        """Puts an entry in its place, over an earlier one: whole or, if the machine stops, not at all.

        submitted: what was judged, the bytes of a notebook file.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.submission(entry.key).exists():
            write_whole(self.submission(entry.key), _sources_of(submitted))
        write_whole(self.path(entry.key), json.dumps(_to_json(entry), indent=1) + "\n")

    def entries(self) -> Iterator[Entry]:
        """Every entry, in no particular order."""
        for path in self.folder.glob("*.json"):
            if (entry := read_entry(path)) is not None:
                yield entry


def read_entry(path: Path) -> Entry | None:
    """The entry in a file of a journal; None where there is none, or none that can be read."""
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that at every moment the old text or the new one is there, whole."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def _sources_of(submitted: bytes) -> str:
    """A notebook with the cells' texts and what they are called, and nothing else of the notebook `submitted`."""
    cells = []
    for cell in json.loads(submitted)["cells"]:
        if not isinstance(cell, dict):
            continue
        metadata = cell.get("metadata")
        nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
        grade_id = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
        kept = {name: cell[name] for name in ("id", "cell_type", "source") if name in cell}
        kept["metadata"] = {} if grade_id is None else {"nbgrader": {"grade_id": grade_id}}
        if cell.get("cell_type") == "code":
            kept |= {"outputs": [], "execution_count": None}
        cells.append(kept)
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1) + "\n"


def _to_json(entry: Entry) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "key": entry.key,
        "lesson": entry.lesson,
        "grading": entry.grading,
        "device": entry.device,
        "sandbox": entry.sandbox,
        "moment": entry.moment,
        "earlier": dict(entry.earlier),
        "judgement": entry.judgement.to_json(),
    }


def _from_json(found: dict[str, Any]) -> Entry:
    if found["schema"] != SCHEMA:
        raise ValueError(f"schema: expected {SCHEMA}, got {found['schema']!r}")
    names = ("key", "lesson", "grading", "device", "sandbox", "moment")
    judgement = Judgement.from_json(found["judgement"])
    return Entry(
        **{name: found[name] for name in names}, judgement=judgement, earlier=found.get("earlier", {})
    )
