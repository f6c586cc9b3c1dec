"""Room on disk for what grows with the archive and is of no use after the run."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SETTINGS = """
    PRAGMA journal_mode = OFF;  -- nothing here outlives a crash
    PRAGMA synchronous = OFF;
    PRAGMA cache_size = -8000;  -- KiB
"""


@contextmanager
def scratch_database(schema: str) -> Iterator[sqlite3.Connection]:
    """Give an empty SQLite database that only this user can read; it is deleted at the end.

    All that is done is one transaction, which ends with the database.

    Args:
        schema: the SQL that creates the tables.
    """
    with tempfile.TemporaryDirectory(prefix="zsad-") as folder:
        database = sqlite3.connect(Path(folder) / "scratch.sqlite", isolation_level=None)
        try:
            database.executescript(_SETTINGS + schema)
            database.execute("BEGIN")
            yield database
        finally:
            database.close()


def to_blob(text: str) -> bytes:
    """Return a path for a column of type BLOB: SQLite takes none that is not UTF-8 as text."""
    return text.encode("utf-8", "surrogateescape")


def from_blob(blob: bytes) -> str:
    """Return what `to_blob` was given."""
    return blob.decode("utf-8", "surrogateescape")
