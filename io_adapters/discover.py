"""Discovery: the files below some URIs become scan refs, and nothing is passed over in silence.

What a file is, `finding` says, and the catalogue where a run before this one has asked. Every file
is part of a ref, or a failure, or counted as ignored because its name says that it never was a
picture.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from io_adapters import dicomweb, sniff, storage
from io_adapters import naming as names
from io_adapters.bids import Datasets
from io_adapters.catalogue import Catalogue
from io_adapters.dicom_header import GROUPING, PROJECTIONS
from io_adapters.dicom_series import name_parts
from io_adapters.dicomweb_uri import is_pacs
from io_adapters.finding import Finding, believe, inspect, take
from io_adapters.naming import Naming
from io_adapters.prefetch import map_ordered
from io_adapters.scan import Failure, FileRef, Kind, ScanRef, Stage
from io_adapters.scratch import scratch_database, to_blob
from io_adapters.series_table import SERIES_TABLES, Part, Series, SeriesTable

_TABLES = f"{SERIES_TABLES} CREATE TABLE met (uri BLOB PRIMARY KEY) WITHOUT ROWID;"
_AT_ONCE = 1000
"""Files that are looked up, and where nothing is known of them looked into, together."""
_THREADS, _AHEAD = 32, 128
"""What it takes to keep a network busy; a few megabytes."""


@dataclass(frozen=True, slots=True)
class _Listed:
    file: FileRef
    relative: str
    """Path from the input root."""


class Discovery:
    """The scans below some URIs, found while one iterates.

    Images and NIfTI files come as they are met, DICOM series at the end, since a series may be
    spread over the whole input. A file below two of the inputs counts once. Memory holds no more
    than one series, however large the input is.

    Attributes:
        ignored: How many files were left aside, by suffix, or by what they are in a BIDS dataset;
            complete when the iteration is, like the next one.
        left_out: How many scans and failures are older than what was asked for.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        naming: Naming,
        *,
        catalogue: Catalogue | None = None,
        since: float | None = None,
    ) -> None:
        """Take what is to be listed; nothing is, before the iteration.

        Args:
            inputs: URIs of files and folders, and queries of a PACS.
            naming: How scans get their ids, labels and class names.
            catalogue: What is known of the files; what is found out of them is added.
            since: Seconds since the epoch: only scans of which a file was modified then or later
                are wanted, each with all its files. A file whose store tells no time is new. The
                name of an old file is believed where it promises an image or NIfTI.
        """
        self.ignored: Counter[str] = Counter()
        self.left_out = 0
        self._inputs = [storage.absolute(uri) for uri in inputs if not is_pacs(uri)]
        self._archives = [uri for uri in inputs if is_pacs(uri)]
        self._naming = naming
        self._catalogue = catalogue
        self._since = since

    def __iter__(self) -> Iterator[ScanRef | Failure]:
        """Yield a ref for every scan, and a failure for every file that should be one and is not.

        Raises:
            FileNotFoundError: an input does not exist.
            PacsError: a PACS does not answer.
        """
        self.ignored.clear()
        self.left_out = 0
        with scratch_database(_TABLES) as database:
            for archive in self._archives:
                for study in dicomweb.search(archive, attributes=GROUPING):
                    yield from self._study_refs(study, database)
            yield from self._refs(self._look_up(self._list(database)), database)

    def _refs(
        self, found: Iterable[tuple[_Listed, Finding]], database: sqlite3.Connection
    ) -> Iterator[ScanRef | Failure]:
        """Yield what files are; the series of them when all are there."""
        table = SeriesTable(database)
        for listed, finding in found:
            if finding.ignored is not None:
                self.ignored[finding.ignored] += 1
            elif finding.header is not None:
                table.add(listed.file, listed.relative, finding.header)
            elif not self._is_new(listed.file):
                self.left_out += 1
            elif finding.error is not None:
                yield _failure(listed.file.uri, finding.error, finding.message, self._naming)
            elif finding.kind is not None:
                yield _file_ref(finding.kind, listed, self._naming)
        for series in table.drain():
            for ref in _series_refs(series, self._naming):
                if any(map(self._is_new, ref.files)):
                    yield ref
                else:
                    self.left_out += 1

    def _study_refs(
        self, study: Sequence[dicomweb.Series], database: sqlite3.Connection
    ) -> Iterator[ScanRef | Failure]:
        """Yield the refs of a study of a PACS: no more of its series will be met elsewhere."""
        for series in study:
            if series.error is not None:
                name, message = type(series.error).__name__, str(series.error)
                yield _failure(series.uri, name, message, self._naming)
        found = (
            (_Listed(file, f"{told.get('StudyInstanceUID', '')}/{file.version}"), take(told))
            for series in study
            for file, told in series.instances
            if _is_first(file, database)
        )
        yield from self._refs(found, database)

    def _list(self, database: sqlite3.Connection) -> Iterator[_Listed]:
        """Yield the files that have to be looked at."""
        for root in self._inputs:
            datasets = Datasets(root)
            for file in storage.list_files(root):
                if ignored := datasets.why_ignored(file.uri):
                    self.ignored[ignored] += 1
                elif len(self._inputs) > 1 and not _is_first(file, database):
                    continue
                elif not self._is_new(file) and sniff.kind_named(file.uri):
                    self.left_out += 1
                else:
                    relative = file.uri.removeprefix(root).lstrip("/")
                    yield _Listed(file, relative or PurePosixPath(file.uri).name)

    def _look_up(self, listing: Iterator[_Listed]) -> Iterator[tuple[_Listed, Finding]]:
        """Yield what files are; only those that nothing is known of are read."""
        while some := list(islice(listing, _AT_ONCE)):
            known = [self._known(listed.file) for listed in some]
            unknown = [
                listed.file for listed, finding in zip(some, known, strict=True) if not finding
            ]
            looked_into = _inspect_all(unknown)
            for listed, finding in zip(some, known, strict=True):
                yield listed, finding or self._learnt(listed.file, next(looked_into))

    def _known(self, file: FileRef) -> Finding | None:
        return believe(file) or (self._catalogue.find(file) if self._catalogue else None)

    def _learnt(self, file: FileRef, finding: Finding) -> Finding:
        if self._catalogue is not None and finding.lasting:
            self._catalogue.add(file, finding)
        return finding

    def _is_new(self, file: FileRef) -> bool:
        return self._since is None or file.modified is None or file.modified >= self._since


def discover(inputs: Sequence[str], *, naming: Naming | None = None) -> Discovery:
    """Find the scans below some files, folders or object-store prefixes.

    Args:
        inputs: URIs of files and folders.
        naming: How scans get their ids, labels and class names.
    """
    return Discovery(inputs, naming or Naming())


def _inspect_all(files: Sequence[FileRef]) -> Iterator[Finding]:
    """Look into files, in order; a local disk answers sooner than a thread that waits for it."""
    if all(storage.is_local(file.uri) for file in files):
        return map(inspect, files)
    return map_ordered(inspect, files, threads=_THREADS, ahead=_AHEAD)


def _is_first(file: FileRef, database: sqlite3.Connection) -> bool:
    """Tell whether a file is met for the first time."""
    query = "INSERT OR IGNORE INTO met VALUES (?)"
    return database.execute(query, (to_blob(file.uri),)).rowcount == 1


def _failure(uri: str, error_class: str, message: str, naming: Naming) -> Failure:
    return Failure(
        uri=names.shown_uri(uri, names.hashed_id(Kind.DICOM, uri), naming),
        stage=Stage.DISCOVER,
        error_class=error_class,
        message=message,
    )


def _file_ref(kind: Kind, listed: _Listed, naming: Naming) -> ScanRef:
    called = names.name_file(kind, listed.file.uri, listed.relative, naming)
    return ScanRef(
        kind=kind,
        uri=names.shown_uri(listed.file.uri, called.scan_id, naming),
        files=(listed.file,),
        scan_id=called.scan_id,
        study_id=called.study_id,
        label=called.label,
        class_name=called.class_name,
    )


def _series_refs(series: Series, naming: Naming) -> Iterator[ScanRef]:
    """Yield the parts of a series as refs, with labels that tell those of one folder apart."""
    label = series.folder if series.is_alone else _label_in_folder(series)
    study_id = (
        names.slug_id(series.study_folder, series.study)
        if naming.keep_ids
        else names.hashed_id("study", series.study)
    )
    called = name_parts([part.header for part in series.parts])
    for part, name in zip(series.parts, called, strict=True):
        identity = "\n".join([series.identity, *name.identity])
        yield _part_ref(part, identity, " ".join([label, *name.words]), study_id, naming)


def _part_ref(part: Part, identity: str, label: str, study_id: str, naming: Naming) -> ScanRef:
    first = part.files[0].uri
    hashed = names.hashed_id(Kind.DICOM, identity)
    where = first if len(part.files) == 1 else first.rpartition("/")[0]
    return ScanRef(
        kind=Kind.DICOM,
        uri=names.shown_uri(where, hashed, naming),
        files=tuple(part.files),
        scan_id=names.slug_id(label, identity) if naming.keep_ids else hashed,
        study_id=study_id,
        label=names.printable(label) if naming.keep_ids else hashed,
        class_name=names.class_of(first, naming),
    )


def _label_in_folder(series: Series) -> str:
    """Return a label for a series that shares its folder with others."""
    first = series.parts[0]
    if first.header.modality in PROJECTIONS:
        return first.relative
    number = first.header.series_number
    parts = [series.folder, first.header.modality, None if number is None else str(number)]
    return " ".join(part for part in parts if part)
