"""The file of results: one JSON for one machine, kept up case by case, so that a run that is cut short loses nothing."""

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
FORMAT = 2


def result_path(name: str) -> Path:
    """Where a result of this name goes. Raises ValueError for a name that is not letters, digits, '.', '_' and '-'."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"name: expected letters, digits, '.', '_' and '-', got {name!r}")
    return RESULTS / f"{name}.json"


def load(path: Path) -> dict[str, Any]:
    """The result, empty where there is no file or one of an older format."""
    empty: dict[str, Any] = {
        "format": FORMAT,
        "environment": {},
        "ceilings": {},
        "contenders": {},
        "cases": [],
    }
    if not path.exists():
        return empty
    result = json.loads(path.read_text())
    return result if result.get("format") == FORMAT else empty


def put(result: dict[str, Any], row: dict[str, Any], order: list[str]) -> None:
    """Put a case's row in, in the place of an older one. order: the names of all cases; a row of another name goes."""
    rows = {old["name"]: old for old in result["cases"]} | {row["name"]: row}
    result["cases"] = [rows[name] for name in order if name in rows]


def save(path: Path, result: dict[str, Any]) -> None:
    """Numbers with five digits: a hundredth of a percent is less than two runs differ by."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(_shorten(result), indent=1) + "\n")


def _shorten(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _shorten(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shorten(item) for item in value]
    return value
