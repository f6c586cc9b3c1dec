"""What one file is: as little of it is read as tells, and what is found survives being kept."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from dicom_files import encode, make_instance

from io_adapters import storage
from io_adapters.dicom_header import read_header
from io_adapters.finding import Finding, believe, inspect
from io_adapters.prefetch import map_ordered
from io_adapters.scan import FileRef, Kind, StorageError, UnreadableError

PIXELS = np.zeros((6, 8), np.int16)
KB, MB = 2**10, 2**20


def file_of(size: int, uri: str = "/a") -> FileRef:
    return FileRef(uri=uri, size=size, version="1")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A storage of one file: its "content", and in "asked" how many bytes were asked for."""
    told: dict[str, object] = {"content": b"", "asked": []}

    def read(_: str, size: int | None = None) -> bytes:
        told["asked"].append(size)
        return told["content"][:size]

    monkeypatch.setattr(storage, "read_head", read)
    monkeypatch.setattr(storage, "read_bytes", read)
    return told


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("before", "after", "asked"),
    [(0, 0, [32 * KB]), (0, 3 * MB, [32 * KB]), (90 * KB, 0, [32 * KB, None]),
     (90 * KB, 3 * MB, [32 * KB, MB]), (2 * MB, 3 * MB, [32 * KB, MB, None])],
)  # fmt: skip
def test_no_more_is_read_than_holds_the_header(
    served: dict, before: int, after: int, asked: list[int | None]
) -> None:
    """The header has `before` bytes of something else in it, and `after` bytes follow."""
    instance = make_instance(PIXELS, DerivationDescription="x" * before or None)
    served["content"] = encode(instance) + bytes(after)
    found = inspect(file_of(len(served["content"])))
    assert found.header == read_header(encode(make_instance(PIXELS)))
    assert served["asked"] == asked


def test_an_empty_file_is_not_asked_for(served: dict) -> None:
    """Some object stores answer with an error where there is no first byte."""
    found = inspect(file_of(0, "/a.dcm"))
    assert (found.message, served["asked"]) == ("named .dcm, but the content is empty", [])


def test_no_two_large_files_are_in_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    report = make_instance(PIXELS, Rows=None, PixelData=None)
    lock, now, most = threading.Lock(), 0, 0

    def read_whole(_: str) -> bytes:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        time.sleep(0.005)
        with lock:
            now -= 1
        return encode(report)

    monkeypatch.setattr(storage, "read_head", lambda *_: encode(report))
    monkeypatch.setattr(storage, "read_bytes", read_whole)
    found = list(map_ordered(inspect, [file_of(2 * MB)] * 12, threads=4))
    assert most == 1 and {item.message for item in found} == {"CT Image Storage has no pixels"}


@pytest.mark.parametrize(
    ("uri", "kind"),
    [("s3://b/a.PNG", Kind.IMAGE), ("gs://b/a.nii.gz", Kind.NIFTI), ("s3://b/a.mgz", Kind.NIFTI),
     ("s3://b/a.dcm", None), ("s3://b/a", None), ("s3://b/a.txt", None), ("/b/a.png", None),
     ("file:///b/a.png", None)],
)  # fmt: skip
def test_only_names_of_images_and_nifti_in_object_stores_are_believed(
    uri: str, kind: Kind | None
) -> None:
    found = believe(file_of(1, uri))
    assert (found and found.kind) == kind


@pytest.mark.parametrize(
    "found",
    [Finding(kind=Kind.NIFTI), Finding(ignored=".txt"), Finding(error="A", message="b"),
     Finding(kind=Kind.DICOM, header=read_header(encode(make_instance(PIXELS)))),
     Finding(kind=Kind.DICOM, header=read_header(encode(make_instance(
         PIXELS, Modality="DX", PixelSpacing=None, ImageOrientationPatient=None,
         SeriesNumber=None, StudyInstanceUID=None, ImageType="DERIVED"))))],
)  # fmt: skip
def test_a_finding_comes_back_as_it_was(found: Finding) -> None:
    assert Finding.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("error", "lasting"),
    [(StorageError("busy"), False), (PermissionError(), False), (UnreadableError("no"), True)],
    ids=["store", "disk", "content"],
)
def test_only_what_the_content_says_lasts(
    error: Exception, lasting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(storage, "read_head", fail)
    found = inspect(file_of(9))
    assert found.error and found.lasting is lasting
