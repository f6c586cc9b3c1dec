"""What one file is: its content says it, and in an object store, where it can, its name.

A name costs nothing there and a look into the content a request; the reader of the scan finds out
where a name was wrong.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydicom import Dataset

from io_adapters import sniff, storage
from io_adapters.dicom_header import (
    Header,
    OwnResultError,
    class_name,
    header_of,
    is_directory,
    parse,
    read_header,
)
from io_adapters.scan import (
    FileRef,
    Kind,
    ScanError,
    StorageError,
    UnreadableError,
    UnsupportedError,
)

_LONG_HEAD = 2**20
"""Bytes that hold the attributes of nearly every DICOM file whose first ones do not."""
_reading_whole = threading.Lock()
"""Files may be of gigabytes: no two are in memory at once only to see what they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a file turned out to be: a scan or a part of one, of no interest, or a failure."""

    kind: Kind | None = None
    header: Header | None = None
    """Of DICOM."""
    ignored: str | None = None
    """What it is counted as, if it is to be ignored."""
    error: str | None = None
    """The class of the error that made it a failure."""
    message: str = ""
    lasting: bool = True
    """Whether it is so until the file changes; storage that does not deliver it may pass."""

    def to_json(self) -> str:
        """Return a lasting finding as one JSON string."""
        header = self.header and self.header.to_json()
        return json.dumps([self.kind, header, self.ignored, self.error, self.message])

    @classmethod
    def from_json(cls, text: str) -> Finding:
        """Rebuild what `to_json` wrote."""
        kind, header, ignored, error, message = json.loads(text)
        return cls(
            kind=kind and Kind(kind),
            header=header and Header.from_json(header),
            ignored=ignored,
            error=error,
            message=message,
        )


def believe(file: FileRef) -> Finding | None:
    """Say what a file is from its name, None where that is not enough."""
    kind = None if storage.is_local(file.uri) else sniff.kind_named(file.uri)
    return Finding(kind=kind) if kind else None


def inspect(file: FileRef) -> Finding:
    """Say what a file is from its content; may run in a thread."""
    return _concluded(lambda: _sniff(file))


def take(told: Dataset) -> Finding:
    """Say what an instance is of which a PACS tells the header."""
    return _concluded(lambda: Finding(kind=Kind.DICOM, header=_told_header(told)))


def _concluded(find: Callable[[], Finding]) -> Finding:
    try:
        return find()
    except OwnResultError:
        return Finding(ignored="results of zsad")
    except ScanError as error:
        lasting = not isinstance(error, StorageError)
        return Finding(error=type(error).__name__, message=str(error), lasting=lasting)
    except OSError as error:
        message = f"the file cannot be opened ({type(error).__name__})"
        return Finding(error=UnreadableError.__name__, message=message, lasting=False)


def _sniff(file: FileRef) -> Finding:
    head = storage.read_head(file.uri, sniff.HEAD_BYTES) if file.size else b""
    kind = sniff.sniff(head)
    if kind is Kind.DICOM and is_directory(head):
        return Finding(ignored="DICOMDIR")
    if kind is Kind.IMAGE or kind is Kind.NIFTI:
        return Finding(kind=kind)
    if kind is None and (ignored := _ignorable(file)):
        return Finding(ignored=ignored)
    if kind is None and (not head or sniff.is_text(head)):
        raise UnreadableError(sniff.mismatch(file.uri, head))
    return Finding(kind=Kind.DICOM, header=_dicom_header(file, head))


def _ignorable(file: FileRef) -> str | None:
    name = PurePosixPath(file.uri).name
    ending = sniff.suffix(name)
    if ending in sniff.IGNORED_SUFFIXES:
        return ending
    return name.lower() if name.lower() in sniff.IGNORED_NAMES else None


def _told_header(told: Dataset) -> Header:
    header = header_of(told)
    if header is None:
        raise UnsupportedError(f"{class_name(told)} has no pixels")
    return header


def _dicom_header(file: FileRef, head: bytes) -> Header:
    """Return the header of what may be a DICOM file, reading on where its head does not hold it.

    Raises:
        ScanError: the file is broken, has no pixels, or is not DICOM after all.
        OSError: it cannot be read.
    """
    for content, is_whole in _growing(file, head):
        try:
            header = read_header(content)
        except UnreadableError:
            if content is head and sniff.sniff(head) is not Kind.DICOM:
                raise UnreadableError(sniff.mismatch(file.uri, head)) from None
            if is_whole:
                raise
            continue
        if header is not None:
            return header
    name = class_name(parse(content, tags=("SOPClassUID",)))
    raise UnsupportedError(f"{name} has no pixels")


def _growing(file: FileRef, head: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield the head of a file, then more of it, then all; and whether it is all."""
    yield head, file.size <= len(head)
    if file.size > _LONG_HEAD:
        yield storage.read_head(file.uri, _LONG_HEAD), False
    if file.size > len(head):
        with _reading_whole:
            yield storage.read_bytes(file.uri), True
