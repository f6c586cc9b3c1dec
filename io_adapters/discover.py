"""Discovery: the files below some URIs become scan refs, and nothing is passed over in silence.

What a file is, its content decides. Every file is part of a ref, or a failure, or counted as
ignored because its name says that it never was a picture.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from io_adapters import naming as names
from io_adapters import sniff, storage
from io_adapters.dicom_header import (
    PROJECTIONS,
    Header,
    class_name,
    is_directory,
    parse,
    read_header,
)
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
class _Series:
    header: Header
    relative: str
    files: list[FileRef] = field(default_factory=list)


class Discovery:
    """The scans below some URIs, found while one iterates.

    Images and NIfTI files come as they are met, DICOM series at the end, since a series may be
    spread over the whole input. A file below two of the inputs counts once.

    Attributes:
        ignored: How many files were left aside, by suffix; complete when the iteration is.
    """

    def __init__(self, inputs: Sequence[str], naming: Naming) -> None:
        self.ignored: Counter[str] = Counter()
        self._inputs = [storage.absolute(uri) for uri in inputs]
        self._naming = naming

    def __iter__(self) -> Iterator[ScanRef | Failure]:
        """Yield a ref for every scan, and a failure for every file that should be one and is not.

        Raises:
            FileNotFoundError: an input does not exist.
        """
        self.ignored.clear()
        series: dict[tuple[str, ...], _Series] = {}
        for found in map_ordered(_inspect, self._list()):
            if found.ignored is not None:
                self.ignored[found.ignored] += 1
            elif found.error is not None:
                yield _failure(found)
            elif found.header is not None:
                key = _series_key(found.header, found.listed.file.uri)
                entry = series.setdefault(key, _Series(found.header, found.listed.relative))
                entry.files.append(found.listed.file)
            elif found.kind is not None:
                yield _file_ref(found.kind, found.listed, self._naming)
        yield from _series_refs(series, self._naming)

    def _list(self) -> Iterator[_Listed]:
        seen: set[str] = set()
        for root in self._inputs:
            for file in storage.list_files(root):
                if file.uri not in seen:
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
    """Read the head of a file and say what it is; runs in a thread, touches nothing shared."""
    try:
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
    except ScanError as error:
        return _Found(listed, error=error)
    except OSError as error:
        return _Found(
            listed, error=UnreadableError(f"the file cannot be opened ({type(error).__name__})")
        )


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


def _failure(found: _Found) -> Failure:
    return Failure(
        uri=found.listed.file.uri,
        stage=Stage.DISCOVER,
        error_class=type(found.error).__name__,
        message=str(found.error),
    )


def _file_ref(kind: Kind, listed: _Listed, naming: Naming) -> ScanRef:
    called = names.name_file(kind, listed.file.uri, listed.relative, naming)
    return ScanRef(
        kind=kind, uri=listed.file.uri, files=(listed.file,), **dataclasses.asdict(called)
    )


def _series_refs(series: dict[tuple[str, ...], _Series], naming: Naming) -> Iterator[ScanRef]:
    """Yield the series as refs, with labels that tell two series of one folder apart."""
    labels = Counter(_folder(entry) for entry in series.values())
    study_folders: dict[str, str] = {}
    for key, entry in series.items():
        first = entry.files[0].uri
        study = entry.header.study_uid or first
        folder = study_folders.setdefault(study, _folder(entry))
        label = _folder(entry)
        if labels[label] > 1:
            label = _label_in_folder(entry)
        identity = "\n".join(key)
        hashed = names.hashed_id(Kind.DICOM, identity)
        yield ScanRef(
            kind=Kind.DICOM,
            uri=first if len(entry.files) == 1 else first.rpartition("/")[0],
            files=tuple(entry.files),
            scan_id=names.slug_id(label, identity) if naming.keep_ids else hashed,
            study_id=names.slug_id(folder, study)
            if naming.keep_ids
            else names.hashed_id("study", study),
            label=label if naming.keep_ids else hashed,
            class_name=names.class_of(first, naming),
        )


def _label_in_folder(entry: _Series) -> str:
    """Return a label for a series that shares its folder with others."""
    if entry.header.modality in PROJECTIONS:
        return entry.relative
    number = entry.header.series_number
    parts = [_folder(entry), entry.header.modality, None if number is None else str(number)]
    return " ".join(part for part in parts if part)


def _folder(entry: _Series) -> str:
    """Return the folder of a series below the input root, or the name of the root itself."""
    parent = str(PurePosixPath(entry.relative).parent)
    return parent if parent != "." else PurePosixPath(entry.files[0].uri).parent.name
