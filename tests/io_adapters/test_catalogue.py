"""What was found in a file is known until the file changes; what is kept of it tells no secrets."""

from __future__ import annotations

import gzip
import io
import os
import uuid
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
from dicom_files import ROOT, encode, make_instance, make_series
from PIL import Image

from io_adapters import dicomweb, storage
from io_adapters.catalogue import Catalogue
from io_adapters.dicomweb import Series
from io_adapters.discover import Discovery
from io_adapters.finding import Finding
from io_adapters.naming import Naming
from io_adapters.scan import Failure, FileRef, Kind, ScanRef, StorageError

PIXELS = np.arange(48, dtype=np.int16).reshape(6, 8)
FILE = FileRef(uri="/a", size=3, version="1")
PICTURE = Finding(kind=Kind.IMAGE)


def png() -> bytes:
    target = io.BytesIO()
    Image.fromarray(PIXELS.astype(np.uint8)).save(target, "PNG")
    return target.getvalue()


def write_archive(root: str) -> None:
    """Write some of everything: two series, images, NIfTI, failures and what is ignored."""
    slices = [encode(item) for item in make_series(np.stack([PIXELS] * 3), SeriesNumber=3)]
    report = make_instance(
        PIXELS, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Rows=None, PixelData=None
    )
    for name, content in {
        **{f"ct/{n}.dcm": content for n, content in enumerate(slices)},
        "dx/1": encode(make_instance(PIXELS, Modality="DX", SeriesInstanceUID=ROOT + "8")),
        "report.dcm": encode(report),
        "result.dcm": encode(make_instance(PIXELS, Manufacturer="zsad")),
        "a.png": png(),
        "b": png(),
        "c.nii.gz": gzip.compress(nib.Nifti1Image(PIXELS[None], np.eye(4)).to_bytes()),
        "text.dcm": b"hello",
        "notes.txt": b"hello",
    }.items():
        storage.put_bytes(f"{root}/{name}", content)


@pytest.fixture(params=["disk", "objects"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The folder of an archive on disk, or its prefix in fsspec's store in memory."""
    disk = request.param == "disk"
    root = str(tmp_path / "archive") if disk else f"memory:///{uuid.uuid4().hex}"
    write_archive(root)
    return root


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "out" / "catalogue.parquet")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that storage was asked for."""
    asked: list[str] = []
    for name in ("read_head", "read_bytes"):
        function = getattr(storage, name)

        def note(uri: str, *arguments: int, function=function) -> bytes:
            if "catalogue" not in uri:
                asked.append(uri.rpartition("/")[2])
            return function(uri, *arguments)

        monkeypatch.setattr(storage, name, note)
    return asked


def find(place: str, *roots: str) -> tuple[list[ScanRef | Failure], dict[str, int]]:
    with Catalogue.open(place) as catalogue:
        discovery = Discovery(roots, Naming(), catalogue=catalogue)
        found = list(discovery)
        catalogue.save()
    return found, dict(discovery.ignored)


def test_a_second_discovery_reads_nothing_and_finds_the_same(
    archive: str, place: str, read: list[str]
) -> None:
    first = find(place, archive)
    assert {"0.dcm", "b", "text.dcm", "notes.txt"} < set(read)
    read.clear()
    assert find(place, archive) == first and not read
    assert len(first[0]) == 7 and first[1] == {"results of zsad": 1, ".txt": 1}


def test_what_is_known_is_what_is_found_without_knowing(archive: str, place: str) -> None:
    find(place, archive)
    assert find(place, archive)[0] == list(Discovery([archive], Naming()))


def test_in_an_object_store_the_names_of_images_and_nifti_are_believed(
    archive: str, place: str, read: list[str]
) -> None:
    find(place, archive)
    assert ("a.png" not in read) == ("c.nii.gz" not in read) == archive.startswith("memory")


def test_a_changed_file_is_read_again(archive: str, place: str, read: list[str]) -> None:
    find(place, archive)
    storage.put_bytes(f"{archive}/text.dcm", png())
    read.clear()
    found, _ = find(place, archive)
    assert set(read) == {"text.dcm"}
    assert [item.kind for item in found if item.uri.endswith("text.dcm")] == [Kind.IMAGE]


def test_a_file_of_the_same_size_is_changed_when_its_time_is(
    tmp_path: Path, place: str, read: list[str]
) -> None:
    (tmp_path / "b").write_bytes(png())
    find(place, f"{tmp_path}/b")
    os.utime(tmp_path / "b", (0, 0))
    read.clear()
    find(place, f"{tmp_path}/b")
    assert read == ["b"]


def test_of_a_series_that_grew_only_the_new_file_is_read(
    archive: str, place: str, read: list[str]
) -> None:
    before = next(item for item in find(place, archive)[0] if len(getattr(item, "files", ())) == 3)
    new = make_series(np.stack([PIXELS] * 4))[3]
    storage.put_bytes(f"{archive}/ct/3.dcm", encode(new))
    read.clear()
    found, _ = find(place, archive)
    (after,) = [item for item in found if isinstance(item, ScanRef) and len(item.files) == 4]
    assert set(read) == {"3.dcm"}
    assert after.scan_id == before.scan_id and after.files[:3] == before.files


def test_what_is_kept_holds_no_uid_no_name_and_no_date(tmp_path: Path, place: str) -> None:
    write_archive(str(tmp_path / "JohnDoe"))
    os.utime(tmp_path / "JohnDoe" / "b", (1_000_000_000, 1_000_000_000))
    find(place, str(tmp_path / "JohnDoe"))
    content = Path(place).read_bytes()
    table = pq.read_table(io.BytesIO(content))
    assert table.num_rows == 11
    said = f"{content!r} {table.to_pylist()} {table.schema}"
    assert not [word for word in (ROOT, "JohnDoe", "ct/", "20200101", "1000000000") if word in said]


def test_files_that_are_not_met_stay_known(tmp_path: Path, place: str, read: list[str]) -> None:
    for name in ("one/a", "other/b"):
        storage.put_bytes(f"{tmp_path}/{name}", png())
    for name in ("one", "other"):
        find(place, f"{tmp_path}/{name}")
    read.clear()
    find(place, f"{tmp_path}/one", f"{tmp_path}/other")
    assert not read


@pytest.mark.parametrize("damage", ["text", "cut", "rules", "column"])
def test_from_a_broken_or_foreign_catalogue_nothing_is_known(
    archive: str, place: str, read: list[str], damage: str
) -> None:
    expected = find(place, archive)
    content = Path(place).read_bytes()
    table = pq.read_table(place)
    if damage == "rules":
        pq.write_table(table.replace_schema_metadata({"rules": "0"}), place)
    elif damage == "column":
        pq.write_table(table.drop(["found"]), place)
    else:
        Path(place).write_bytes(b"hello" if damage == "text" else content[:-60])
    read.clear()
    assert find(place, archive) == expected and "0.dcm" in read


def test_another_key_for_hashes_forgets_what_was_known(
    tmp_path: Path, place: str, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.put_bytes(f"{tmp_path}/in/a", encode(make_instance(PIXELS)))
    ((before,), _) = find(place, f"{tmp_path}/in")
    monkeypatch.setenv("ZSAD_ID_KEY", "secret")
    read.clear()
    ((after,), _) = find(place, f"{tmp_path}/in")
    assert set(read) == {"a"} and before.scan_id != after.scan_id


def test_trouble_of_the_storage_is_not_kept(
    archive: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(uri: str, size: int) -> bytes:
        raise StorageError("s3://b: busy") if uri.endswith("b") else PermissionError

    monkeypatch.setattr(storage, "read_head", fail)
    found, _ = find(place, archive)
    failures = [item for item in found if isinstance(item, Failure)]
    assert {item.error_class for item in failures} == {"StorageError", "UnreadableError"}
    assert not Path(place).exists()


def test_nothing_of_a_pacs_is_kept(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its URIs and versions are UIDs, and it tells headers without being asked for files."""
    file = FileRef(uri="dicomweb://host/studies/1/series/2/instances/3", size=0, version="3")
    told = make_instance(PIXELS)
    series = Series(uri="dicomweb://host/studies/1/series/2", instances=[(file, told)])
    monkeypatch.setattr(dicomweb, "search", lambda *_, **__: iter([[series]]))
    found, _ = find(place, "dicomweb://host")
    assert len(found) == 1 and not Path(place).exists()


def test_only_the_latest_version_of_a_file_is_kept(place: str) -> None:
    newer = FileRef(uri="/a", size=3, version="2")
    with Catalogue.open(place) as catalogue:
        catalogue.add(FILE, PICTURE)
        catalogue.add(newer, Finding(ignored=".txt"))
        assert catalogue.find(FILE) is None
        catalogue.save()
    assert pq.read_table(place).num_rows == 1
    with Catalogue.open(place) as catalogue:
        assert catalogue.find(newer) == Finding(ignored=".txt")


def test_a_catalogue_is_written_only_when_there_is_something_new(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Catalogue.open(place) as catalogue:
        catalogue.save()
        assert not Path(place).exists()
        catalogue.add(FILE, PICTURE)
        catalogue.save()
    monkeypatch.setattr(storage, "put_bytes", None)
    with Catalogue.open(place) as catalogue:
        assert catalogue.find(FILE) == PICTURE
        catalogue.save()


def test_a_catalogue_without_a_place_lasts_as_long_as_it_is_open() -> None:
    with Catalogue.open() as catalogue:
        catalogue.add(FILE, PICTURE)
        assert catalogue.find(FILE) == PICTURE
        catalogue.save()
    with Catalogue.open() as catalogue:
        assert catalogue.find(FILE) is None
