"""The DICOM files of a listing, put together to series on disk.

A series may be spread over the whole input, so none is complete before the listing is. Whatever the
order of the listing, series and their files come in the order of their URIs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from io_adapters.dicom_header import PROJECTIONS, Header
from io_adapters.dicom_series import same_scan
from io_adapters.naming import keyed_hash
from io_adapters.scan import FileRef
from io_adapters.scratch import from_blob, to_blob

SERIES_TABLES = """
    CREATE TABLE instance (
        series TEXT NOT NULL, study TEXT NOT NULL,
        uri BLOB NOT NULL, size INTEGER NOT NULL, version TEXT NOT NULL, modified REAL,
        relative BLOB NOT NULL, header TEXT NOT NULL
    );
    CREATE INDEX by_series ON instance (series, uri);
    CREATE TABLE series (
        series TEXT NOT NULL, study TEXT NOT NULL, uri BLOB NOT NULL, folder BLOB NOT NULL
    );
    CREATE INDEX by_uri ON series (uri);
    CREATE INDEX by_folder ON series (folder);
    CREATE INDEX by_study ON series (study, uri);
"""


@dataclass(slots=True)
class Part:
    """The files of a series that are one scan."""

    header: Header
    """Of its first file."""
    relative: str
    """Path of the first file from the input root."""
    files: list[FileRef] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A series with all its files; where every file is a picture of its own, one of them."""

    identity: str
    """Keyed hash."""
    study: str
    """The same of what it shares with the other series of its study."""
    folder: str
    """Where its first file is, below the input root; or the name of the root itself."""
    study_folder: str
    """The same of the first series of the study."""
    is_alone: bool
    """Whether it is the only one in its folder."""
    parts: list[Part]


class SeriesTable:
    """Gathers the files of series in a database that was made with `SERIES_TABLES`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add(self, file: FileRef, relative: str, header: Header) -> None:
        """Take in a file.

        Args:
            file: where it is.
            relative: its path from the input root.
            header: what it says of itself.
        """
        study = header.study or keyed_hash(file.uri)
        where = (to_blob(file.uri), file.size, file.version, file.modified)
        self._database.execute(
            "INSERT INTO instance VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (_series_of(header, file.uri), study, *where, to_blob(relative), header.to_json()),
        )

    def drain(self) -> Iterator[Series]:
        """Yield all series, and be empty after the last one."""
        self._list_series()
        for row in self._database.execute("SELECT series, study, folder FROM series ORDER BY uri"):
            series, study, folder = row
            yield Series(
                identity=series,
                study=study,
                folder=from_blob(folder),
                study_folder=self._study_folder(study),
                is_alone=self._is_alone(folder),
                parts=self._parts(series),
            )
        self._database.execute("DELETE FROM series")
        self._database.execute("DELETE FROM instance")

    def _list_series(self) -> None:
        firsts = self._database.execute(
            # SQLite takes the columns beside a lone min() from the row that has the minimum.
            "SELECT series, study, min(uri), relative FROM instance GROUP BY series"
        )
        for series, study, uri, relative in firsts:
            folder = to_blob(_folder(from_blob(uri), from_blob(relative)))
            self._database.execute(
                "INSERT INTO series VALUES (?, ?, ?, ?)", (series, study, uri, folder)
            )

    def _study_folder(self, study: str) -> str:
        query = "SELECT folder FROM series WHERE study = ? ORDER BY uri LIMIT 1"
        return from_blob(self._database.execute(query, (study,)).fetchone()[0])

    def _is_alone(self, folder: bytes) -> bool:
        query = "SELECT 1 FROM series WHERE folder = ? LIMIT 2"
        return len(self._database.execute(query, (folder,)).fetchall()) == 1

    def _parts(self, series: str) -> list[Part]:
        """Return the scans of a series, each with its files."""
        parts: list[Part] = []
        rows = self._database.execute(
            "SELECT uri, size, version, modified, relative, header FROM instance "
            "WHERE series = ? ORDER BY uri",
            (series,),
        )
        for uri, size, version, modified, relative, text in rows:
            header = Header.from_json(text)
            part = next((part for part in parts if same_scan(part.header, header)), None)
            if part is None:
                part = Part(header, from_blob(relative))
                parts.append(part)
            part.files.append(
                FileRef(uri=from_blob(uri), size=size, version=version, modified=modified)
            )
        return parts


def _series_of(header: Header, uri: str) -> str:
    """Return what identifies a series, and where every file is a picture of its own, the file."""
    if not header.series:
        return keyed_hash("\n".join([header.study, uri]))
    if header.modality in PROJECTIONS:
        return keyed_hash("\n".join([header.study, header.series, header.instance or uri]))
    return keyed_hash("\n".join([header.study, header.series]))


def _folder(uri: str, relative: str) -> str:
    parent = str(PurePosixPath(relative).parent)
    return parent if parent != "." else PurePosixPath(uri).parent.name
