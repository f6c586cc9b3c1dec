"""Discovery: the files below some URIs become scan refs, and nothing is passed over in silence.

What a file is, its content decides. Every file is part of a ref, or a failure, or counted as
ignored because its name says that it never was a picture.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pydicom import Dataset

from io_adapters import dicomweb, sniff, storage
from io_adapters import naming as names
from io_adapters.bids import Datasets
from io_adapters.dicom_header import (
    GROUPING,
    PROJECTIONS,
    Header,
    OwnResultError,
    class_name,
    header_of,
    is_directory,
    parse,
    read_header,
)
from io_adapters.dicom_series import name_parts, same_scan
from io_adapters.dicomweb_uri import is_pacs
from io_adapters.naming import Naming
from io_adapters.prefetch import map_ordered
from io_adapters.scan import (
    Failure,
    FileRef,
    Kind,
    ScanError,
    ScanRef,
    Stage,
    UnreadableError,
    UnsupportedError,
)


@dataclass(frozen=True, slots=True)
class _Listed:
    file: FileRef
    relative: str
    """Path from the input root."""
    told: Dataset | None = None
    """The header, where a PACS tells it without the file."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What the content of one file turned out to be."""

    listed: _Listed
    kind: Kind | None = None
    header: Header | None = None
    """For DICOM."""
    ignored: str | None = None
    """What the file is counted as, if it is to be ignored."""
    error: ScanError | None = None


@dataclass(slots=True)
class _Part:
    """The files of a series that are one scan."""

    header: Header
    """Of its first file."""
    relative: str
    files: list[FileRef] = field(default_factory=list)


class Discovery:
    """The scans below some URIs, found while one iterates.

    Images and NIfTI files come as they are met, DICOM series at the end, since a series may be
    spread over the whole input. A file below two of the inputs counts once.

    Attributes:
        ignored: How many files were left aside, by suffix, or by what they are in a BIDS dataset;
            complete when the iteration is.
    """

    def __init__(self, inputs: Sequence[str], naming: Naming) -> None:
        self.ignored: Counter[str] = Counter()
        self._inputs = [storage.absolute(uri) for uri in inputs if not is_pacs(uri)]
        self._archives = [uri for uri in inputs if is_pacs(uri)]
        self._naming = naming

    def __iter__(self) -> Iterator[ScanRef | Failure]:
        """Yield a ref for every scan, and a failure for every file that should be one and is not.

        Raises:
            FileNotFoundError: an input does not exist.
            PacsError: a PACS does not answer.
        """
        self.ignored.clear()
        seen: set[str] = set()
        for archive in self._archives:
            for study in dicomweb.search(archive, attributes=GROUPING):
                yield from self._study_refs(study, seen)
        yield from self._refs(self._list())

    def _refs(self, listing: Iterable[_Listed]) -> Iterator[ScanRef | Failure]:
        series: dict[tuple[str, ...], list[_Part]] = {}
        for found in map_ordered(_inspect, listing):
            if found.ignored is not None:
                self.ignored[found.ignored] += 1
            elif found.error is not None:
                yield _failure(found.listed.file.uri, found.error, self._naming)
            elif found.header is not None:
                key = _series_key(found.header, found.listed.file.uri)
                _put(series.setdefault(key, []), found.header, found.listed)
            elif found.kind is not None:
                yield _file_ref(found.kind, found.listed, self._naming)
        yield from _series_refs(series, self._naming)

    def _study_refs(
        self, study: Sequence[dicomweb.Series], seen: set[str]
    ) -> Iterator[ScanRef | Failure]:
        """Yield the refs of a study of a PACS: no more of its series will be met elsewhere."""
        listing: list[_Listed] = []
        for series in study:
            if series.error is not None:
                yield _failure(series.uri, series.error, self._naming)
            for file, told in series.instances:
                if file.uri not in seen:
                    seen.add(file.uri)
                    relative = f"{told.get('StudyInstanceUID', '')}/{file.version}"
                    listing.append(_Listed(file, relative, told))
        yield from self._refs(listing)

    def _list(self) -> Iterator[_Listed]:
        seen: set[str] = set()
        for root in self._inputs:
            datasets = Datasets(root)
            for file in storage.list_files(root):
                if ignored := datasets.why_ignored(file.uri):
                    self.ignored[ignored] += 1
                elif file.uri not in seen:
                    seen.add(file.uri)
                    relative = file.uri.removeprefix(root).lstrip("/")
                    yield _Listed(file, relative or PurePosixPath(file.uri).name)


def discover(inputs: Sequence[str], *, naming: Naming | None = None) -> Discovery:
    """Find the scans below some files, folders or object-store prefixes.

    Args:
        inputs: URIs of files and folders.
        naming: How scans get their ids, labels and class names.
    """
    return Discovery(inputs, naming or Naming())


def _inspect(listed: _Listed) -> _Found:
    """Say what a file is, from its head; runs in a thread, touches nothing shared."""
    try:
        if listed.told is not None:
            return _Found(listed, kind=Kind.DICOM, header=_told_header(listed.told))
        return _sniff(listed)
    except OwnResultError:
        return _Found(listed, ignored="results of zsad")
    except ScanError as error:
        return _Found(listed, error=error)
    except OSError as error:
        return _Found(
            listed, error=UnreadableError(f"the file cannot be opened ({type(error).__name__})")
        )


def _sniff(listed: _Listed) -> _Found:
    head = storage.read_head(listed.file.uri, sniff.HEAD_BYTES)
    kind = sniff.sniff(head)
    if kind is Kind.DICOM and is_directory(head):
        return _Found(listed, ignored="DICOMDIR")
    if kind is Kind.IMAGE or kind is Kind.NIFTI:
        return _Found(listed, kind=kind)
    if kind is None and (ignored := _ignorable(listed)):
        return _Found(listed, ignored=ignored)
    if kind is None and (not head or sniff.is_text(head)):
        raise UnreadableError(_mismatch(listed, head))
    return _Found(listed, kind=Kind.DICOM, header=_dicom_header(listed, head, kind))


def _told_header(told: Dataset) -> Header:
    header = header_of(told)
    if header is None:
        raise UnsupportedError(f"{class_name(told)} has no pixels")
    return header


def _dicom_header(listed: _Listed, head: bytes, kind: Kind | None) -> Header:
    """Return the header of a DICOM file, reading on where its first bytes do not hold it.

    Raises:
        ScanError: the file is broken, has no pixels, or is not DICOM after all.
    """
    whole = listed.file.size <= len(head)
    try:
        header = read_header(head)
    except UnreadableError:
        if kind is None:
            raise UnreadableError(_mismatch(listed, head)) from None
        if whole:
            raise
        header = None
    if header is None and not whole:
        head = storage.read_bytes(listed.file.uri)
        header = read_header(head)
    if header is None:
        raise UnsupportedError(f"{class_name(parse(head, tags=('SOPClassUID',)))} has no pixels")
    return header


def _ignorable(listed: _Listed) -> str | None:
    name = PurePosixPath(listed.file.uri).name
    ending = sniff.suffix(name)
    if ending in sniff.IGNORED_SUFFIXES:
        return ending
    return name.lower() if name.lower() in sniff.IGNORED_NAMES else None


def _mismatch(listed: _Listed, head: bytes) -> str:
    content = sniff.describe(head)
    ending = sniff.suffix(PurePosixPath(listed.file.uri).name)
    known = sniff.IMAGE_SUFFIXES | sniff.NIFTI_SUFFIXES | sniff.DICOM_SUFFIXES
    if ending in known:
        return f"named {ending}, but the content is {content}"
    return f"the content is {content}"


def _series_key(header: Header, uri: str) -> tuple[str, ...]:
    """Return what identifies a scan: the series, and where every file is a picture, the file."""
    if not header.series_uid:
        return (header.study_uid, uri)
    if header.modality in PROJECTIONS:
        return (header.study_uid, header.series_uid, header.instance_uid or uri)
    return (header.study_uid, header.series_uid)


def _put(parts: list[_Part], header: Header, listed: _Listed) -> None:
    """Add a file to the part of a series that it belongs to, or to a new one."""
    part = next((part for part in parts if same_scan(part.header, header)), None)
    if part is None:
        part = _Part(header, listed.relative)
        parts.append(part)
    part.files.append(listed.file)


def _failure(uri: str, error: ScanError, naming: Naming) -> Failure:
    return Failure(
        uri=names.shown_uri(uri, names.hashed_id(Kind.DICOM, uri), naming),
        stage=Stage.DISCOVER,
        error_class=type(error).__name__,
        message=str(error),
    )


def _file_ref(kind: Kind, listed: _Listed, naming: Naming) -> ScanRef:
    called = names.name_file(kind, listed.file.uri, listed.relative, naming)
    return ScanRef(
        kind=kind, uri=listed.file.uri, files=(listed.file,), **dataclasses.asdict(called)
    )


def _series_refs(series: dict[tuple[str, ...], list[_Part]], naming: Naming) -> Iterator[ScanRef]:
    """Yield the parts of series as refs, with labels that tell those of one folder apart."""
    labels = Counter(_folder(parts[0]) for parts in series.values())
    study_folders: dict[str, str] = {}
    for key, parts in series.items():
        first = parts[0]
        study = first.header.study_uid or first.files[0].uri
        folder = study_folders.setdefault(study, _folder(first))
        label = _folder(first) if labels[_folder(first)] == 1 else _label_in_folder(first)
        study_id = (
            names.slug_id(folder, study) if naming.keep_ids else names.hashed_id("study", study)
        )
        for part, called in zip(parts, name_parts([part.header for part in parts]), strict=True):
            identity = "\n".join([*key, *called.identity])
            yield _part_ref(part, identity, " ".join([label, *called.words]), study_id, naming)


def _part_ref(part: _Part, identity: str, label: str, study_id: str, naming: Naming) -> ScanRef:
    first = part.files[0].uri
    hashed = names.hashed_id(Kind.DICOM, identity)
    where = first if len(part.files) == 1 else first.rpartition("/")[0]
    return ScanRef(
        kind=Kind.DICOM,
        uri=names.shown_uri(where, hashed, naming),
        files=tuple(part.files),
        scan_id=names.slug_id(label, identity) if naming.keep_ids else hashed,
        study_id=study_id,
        label=label if naming.keep_ids else hashed,
        class_name=names.class_of(first, naming),
    )


def _label_in_folder(part: _Part) -> str:
    """Return a label for a series that shares its folder with others."""
    if part.header.modality in PROJECTIONS:
        return part.relative
    number = part.header.series_number
    parts = [_folder(part), part.header.modality, None if number is None else str(number)]
    return " ".join(part for part in parts if part)


def _folder(part: _Part) -> str:
    """Return the folder of a series below the input root, or the name of the root itself."""
    parent = str(PurePosixPath(part.relative).parent)
    return parent if parent != "." else PurePosixPath(part.files[0].uri).parent.name
