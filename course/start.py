"""`course start`: a learner's own copy of the lessons, in work/, which git ignores.

release/ is committed and has to stay as it is. The copy keeps a lesson's name, so that it can be handed in as
it is, and nothing that a learner has is ever overwritten.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Copied:
    """What became of one lesson: ``new`` files were copied, ``kept`` ones were there and differ or not."""

    name: str
    new: tuple[str, ...]
    kept: tuple[str, ...]


def released_lessons(root: Path) -> list[str]:
    """Names of the lessons in ``root/release``, in order."""
    return sorted(path.name for path in (root / "release").glob("*") if any(path.glob("*.ipynb")))


def resolve(root: Path, wanted: Sequence[str]) -> list[str]:
    """Full lesson names for what a person typed: ``01_warm_up``, ``01`` or ``1``; all of them for nothing.

    Raises:
        ValueError: no lesson has that name or number.
    """
    names = released_lessons(root)
    if not names:
        raise ValueError(
            f"no lesson in {root / 'release'}: run `make release`, or get the folder from git again"
        )
    chosen = []
    for text in wanted:
        found = [
            name
            for name in names
            if name == text or (text.isdigit() and int(name.split("_")[0]) == int(text))
        ]
        if not found:
            raise ValueError(f"unknown lesson {text!r}: there are {', '.join(names)}")
        chosen.append(found[0])
    return chosen or names


def start(root: Path, wanted: Sequence[str] = ()) -> list[Copied]:
    """Copies lessons from ``root/release`` to ``root/work``, leaving alone every file that is there already.

    Raises:
        ValueError: an unknown lesson.
    """
    copied = []
    for name in resolve(root, wanted):
        new, kept = [], []
        for path in sorted((root / "release" / name).rglob("*")):
            relative = path.relative_to(root / "release" / name)
            if path.is_dir() or ".ipynb_checkpoints" in relative.parts:
                continue
            target = root / "work" / name / relative
            if target.exists():
                kept.append(relative.as_posix())
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)  # the copy is writable even where the original is not
            new.append(relative.as_posix())
        copied.append(Copied(name, tuple(new), tuple(kept)))
    return copied
