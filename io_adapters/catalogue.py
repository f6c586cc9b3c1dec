"""The catalogue: what the files of an archive were found to be, so that each is read only once.

A finding holds for one version of a file: its size and its modification time or ETag. The catalogue
lies in the output folder, where no UID and no date may be, so files and versions are keyed hashes
there, and headers hold neither (see `Header`). While a run is at work it is a database on disk.
"""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from io_adapters import storage
from io_adapters.finding import Finding
from io_adapters.naming import keyed_digest, keyed_hash
from io_adapters.scan import FileRef
from io_adapters.scratch import scratch_database

CATALOGUE = "catalogue.parquet"
"""Its name in the output folder."""
_RULES = "1"
"""To be counted up when files are understood in another way: what is known is then forgotten."""
_ROWS = 10_000
"""How many are in memory at once."""
_TABLE = """
    CREATE TABLE finding (
        file BLOB PRIMARY KEY, version BLOB NOT NULL, found TEXT NOT NULL
    ) WITHOUT ROWID;
"""


class Catalogue:
    """What earlier runs and this one found in files.

    Files that a run does not meet stay in it, because another run may have another input.
    """

    def __init__(self, database: sqlite3.Connection, uri: str | None) -> None:
        self._database = database
        self._uri = uri
        self._changed = False

    @classmethod
    @contextmanager
    def open(cls, uri: str | None = None) -> Iterator[Catalogue]:
        """Open what an earlier run saved; nothing is known where that is missing or broken.

        Args:
            uri: where it was saved and is to be saved; None: an empty one that is never saved.

        Raises:
            OSError: storage does not deliver what is there.
        """
        with scratch_database(_TABLE) as database:
            catalogue = cls(database, uri)
            if uri is not None and storage.exists(uri):
                catalogue._load(uri)
            yield catalogue

    def find(self, file: FileRef) -> Finding | None:
        """Return what is known of this version of a file."""
        query = "SELECT found FROM finding WHERE file = ? AND version = ?"
        row = self._database.execute(query, _key(file)).fetchone()
        return None if row is None else Finding.from_json(row[0])

    def add(self, file: FileRef, finding: Finding) -> None:
        """Note what a file turned out to be, in place of what an older version of it was.

        Args:
            file: of a disk or an object store; the version of an instance of a PACS is a UID.
            finding: one that is lasting.
        """
        row = (*_key(file), finding.to_json())
        self._database.execute("INSERT OR REPLACE INTO finding VALUES (?, ?, ?)", row)
        self._changed = True

    def save(self) -> None:
        """Write what is known where it was opened, if there is anything new."""
        if self._uri is not None and self._changed:
            storage.put_bytes(self._uri, self._encode())
            self._changed = False

    def _encode(self) -> bytes:
        buffer = io.BytesIO()
        # In the order of the keys it is loaded in a fraction of the time.
        rows = self._database.execute("SELECT file, version, found FROM finding ORDER BY file")
        with pq.ParquetWriter(buffer, _schema(), compression="zstd") as writer:
            while part := rows.fetchmany(_ROWS):
                columns = [list(column) for column in zip(*part, strict=True)]
                writer.write_batch(pa.record_batch(columns, schema=_schema()))
        return buffer.getvalue()

    def _load(self, uri: str) -> None:
        content = storage.read_bytes(uri)
        try:
            with pq.ParquetFile(io.BytesIO(content)) as table:
                if table.schema_arrow.equals(_schema(), check_metadata=True):
                    for batch in table.iter_batches(_ROWS):
                        self._insert(batch)
        except (pa.ArrowException, OSError, ValueError):  # all of them are pyarrow's for damage
            self._database.execute("DELETE FROM finding")

    def _insert(self, batch: pa.RecordBatch) -> None:
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        self._database.executemany("INSERT OR REPLACE INTO finding VALUES (?, ?, ?)", rows)


def _schema() -> pa.Schema:
    """Return the columns, and what must be the same for findings to be of use.

    With another key for hashes, another UID would hide behind each of them.
    """
    names = ("file", pa.binary(16)), ("version", pa.binary(16)), ("found", pa.string())
    fields = [pa.field(name, kind, nullable=False) for name, kind in names]
    return pa.schema(fields, {"rules": _RULES, "key": keyed_hash("catalogue")})


def _key(file: FileRef) -> tuple[bytes, bytes]:
    version = f"{file.size} {file.version}"
    return keyed_digest(file.uri)[:16], keyed_digest(version)[:16]
