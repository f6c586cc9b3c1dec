"""With `since`, discovery yields what is new and leaves out the rest, at no cost where it can."""

from __future__ import annotations

import io
import os
import uuid
from pathlib import Path

import numpy as np
import pytest
from dicom_files import ROOT, encode, make_instance, make_series
from PIL import Image

from io_adapters import storage
from io_adapters.discover import Discovery
from io_adapters.naming import Naming
from io_adapters.scan import Failure, ScanRef

PIXELS = np.zeros((6, 8), np.int16)
LAST_NIGHT = 2_000_000_000.0


def png() -> bytes:
    target = io.BytesIO()
    Image.fromarray(PIXELS.astype(np.uint8)).save(target, "PNG")
    return target.getvalue()


def put(path: Path, content: bytes, *, age: float = 0) -> None:
    """Write a file `age` seconds before last night."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (LAST_NIGHT - age, LAST_NIGHT - age))


def find(root: Path | str, since: float | None = LAST_NIGHT) -> tuple[list[ScanRef | Failure], int]:
    discovery = Discovery([str(root)], Naming(), since=since)
    return list(discovery), discovery.left_out


@pytest.mark.parametrize("name", ["a.png", "a"], ids=["named", "unnamed"])
@pytest.mark.parametrize(("age", "left_out"), [(-1, 0), (0, 0), (1, 1)])
def test_only_what_is_modified_then_or_later_is_found(
    tmp_path: Path, name: str, age: float, left_out: int
) -> None:
    put(tmp_path / name, png(), age=age)
    found, count = find(tmp_path)
    assert (len(found), count) == (1 - left_out, left_out)


def test_without_since_nothing_is_left_out(tmp_path: Path) -> None:
    put(tmp_path / "a.png", png(), age=10**9)
    found, count = find(tmp_path, None)
    assert (len(found), count) == (1, 0)


def test_old_images_and_nifti_are_not_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.NII.gz", "c.tif"):
        put(tmp_path / name, b"", age=1)
    monkeypatch.setattr(storage, "read_head", None)
    assert find(tmp_path) == ([], 3)


def test_a_series_is_found_whole_when_one_of_its_files_is_new(tmp_path: Path) -> None:
    for n, instance in enumerate(make_series(np.stack([PIXELS] * 4))):
        put(tmp_path / "grown" / f"{n}", encode(instance), age=0 if n == 2 else 9)
    for n, uid in enumerate((ROOT + "7", ROOT + "7")):
        instance = make_instance(PIXELS, SeriesInstanceUID=uid, ImagePositionPatient=[0, 0, n])
        put(tmp_path / "old" / f"{n}", encode(instance), age=9)
    ((grown,), count) = find(tmp_path)
    assert isinstance(grown, ScanRef) and len(grown.files) == 4 and count == 1
    (everything, _) = find(tmp_path, None)
    assert grown in everything


def test_a_scout_that_joins_does_not_make_its_old_volume_new(tmp_path: Path) -> None:
    kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    put(tmp_path / "volume", encode(make_instance(PIXELS)), age=1)
    put(tmp_path / "scout", encode(make_instance(PIXELS, ImageType=kind)))
    ((scout,), count) = find(tmp_path)
    assert isinstance(scout, ScanRef) and scout.files[0].uri.endswith("scout") and count == 1


def test_an_old_failure_is_left_out_too(tmp_path: Path) -> None:
    put(tmp_path / "old.dcm", b"hello", age=1)
    put(tmp_path / "new.dcm", b"hello")
    ((failure,), count) = find(tmp_path)
    assert failure.uri.endswith("new.dcm") and count == 1


def test_what_is_ignored_is_counted_whatever_its_age(tmp_path: Path) -> None:
    put(tmp_path / "notes.txt", b"hello", age=1)
    discovery = Discovery([str(tmp_path)], Naming(), since=LAST_NIGHT)
    assert list(discovery) == [] and discovery.ignored == {".txt": 1}
    assert list(discovery) == [] and discovery.left_out == 0


def test_a_file_whose_store_tells_no_time_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    root = f"memory:///{uuid.uuid4().hex}"
    storage.put_bytes(f"{root}/a.png", png())
    (file,) = storage.list_files(root)
    untimed = type(file)(uri=file.uri, size=file.size, version=file.version)
    monkeypatch.setattr(storage, "list_files", lambda _: iter([untimed]))
    found, count = find(root, since=10.0**12)
    assert (len(found), count) == (1, 0)
