"""A course's gradebook comes into being whole: nbgrader alone, killed while it makes one, leaves it without its version."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI

SQLITE = "sqlite:///"


def make_gradebook(api: NbGraderAPI) -> None:
    """Makes the gradebook's file where there is none."""
    url = api.coursedir.db_url
    path = Path(url.removeprefix(SQLITE))
    if not url.startswith(SQLITE) or path.exists():
        return
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        Gradebook(f"{SQLITE}{new}", api.course_id).close()
        with suppress(FileExistsError):  # somebody else was faster
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)
