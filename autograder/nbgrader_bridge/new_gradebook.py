"""A course's gradebook comes into being whole: nbgrader alone, killed while it makes one, leaves it without its version."""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from alembic.script import ScriptDirectory
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from nbgrader.dbutil import ALEMBIC_DIR

SQLITE = "sqlite:///"


def make_gradebook(api: NbGraderAPI) -> None:
    """Makes the gradebook's file where there is none."""
    url = api.coursedir.db_url
    path = Path(url.removeprefix(SQLITE))
    if not url.startswith(SQLITE) or path.exists():
        return
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _write_version(new)
        Gradebook(f"{SQLITE}{new}", api.course_id).close()
        with suppress(FileExistsError):  # somebody else was faster
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)


def _write_version(path: Path) -> None:
    """Starts the gradebook with its version, as nbgrader writes it; nbgrader starts a process of seconds to learn it."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        version = ScriptDirectory(ALEMBIC_DIR).get_current_head()
        database.execute("INSERT INTO alembic_version (version_num) VALUES (?)", [version])
        database.commit()
