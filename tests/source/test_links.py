"""Links inside the repository: README, CONTRIBUTING and the lessons point at files and headings that are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *(ROOT / "source").glob("*.py")])
LINK = re.compile(r"\]\(([^()\s]+)(?:\s+[\x22\x27][^\x22\x27]*[\x22\x27])?\)")


def relative_links(path: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    if path.suffix == ".py":
        # In a lesson only markdown has links, and there every line is a comment.
        text = "\n".join(line for line in text.split("\n") if line.startswith("#"))
    return [target for target in LINK.findall(text) if not re.match(r"[a-z]+:", target)]


def anchors(path: Path) -> set[str]:
    """GitHub's anchors of a markdown file's headings."""
    found = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def faults(path: Path) -> list[str]:
    # A lesson is opened in work/NN_name/, which is as deep as release/NN_name/.
    base = ROOT / "work" / path.stem if path.suffix == ".py" else path.parent
    found = []
    for target in relative_links(path):
        place, _, anchor = unquote(target).partition("#")
        other = (base / place).resolve() if place else path
        if not other.is_relative_to(ROOT) or not other.exists():
            found.append(f"{target}: no such file")
        elif anchor and other.suffix == ".md" and anchor not in anchors(other):
            found.append(f"{target}: no such heading")
        elif place and not committed(other):
            found.append(f"{target}: not committed")
    return found


def committed(path: Path) -> bool:
    name = path.relative_to(ROOT).as_posix() or "."
    listed = subprocess.run(["git", "ls-files", "--", name], cwd=ROOT, capture_output=True, text=True)
    return listed.returncode != 0 or bool(
        listed.stdout.strip()
    )  # an export without git has nothing to compare


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    assert faults(path) == []


def test_the_two_documents_are_there_and_have_links() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        assert relative_links(ROOT / name), name


def test_a_broken_link_and_a_missing_heading_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading\n[a](gone.md) [b](#a-heading) [c](#none) [d](https://example.org) [e](page.md 'x')\n"
    )
    assert faults(page) == ["gone.md: no such file", "#none: no such heading"]
