"""The instructor's secret, and the seeds of hidden cases drawn from it.

A verdict names its grading by a public number, fresh for each grading. The hidden cases are drawn from that number *and*
the secret: who sees a verdict, or guesses the number, learns nothing about them, and the instructor can draw them again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

SIZE = 32  # bytes


def fresh_grading() -> int:
    """A public number for a new grading."""
    return secrets.randbits(48)


def hidden_seed(secret: bytes, lesson: str, grading: int) -> int:
    """The seed of a lesson's hidden cases in the grading with this number: 48 bits, the same each time."""
    digest = hmac.digest(secret, f"{lesson}/{grading}".encode(), hashlib.sha256)
    return int.from_bytes(digest[:6], "little")


def read_or_make(path: Path) -> bytes:
    """The instructor's secret in the file at `path`, made on first use and readable by its owner alone.

    Two processes that make it at once agree. Raises ValueError where the file holds something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Written whole before it has its name, and never over another's.
        new = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(SIZE) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(new, path)
        except FileExistsError:
            pass
        finally:
            new.unlink()
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        secret = b""
    if len(secret) != SIZE:
        raise ValueError(
            f"{path}: expected the instructor's secret, {2 * SIZE} hexadecimal digits; restore it from a backup, or delete "
            "the file to have a new one made (earlier verdicts can then no longer be replayed)"
        )
    return secret
