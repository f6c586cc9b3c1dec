"""Storage: listing, reading and atomic writing, on a disk and in an object store alike."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

import pytest

from io_adapters import storage
from io_adapters.discover import discover
from io_adapters.scan import Failure, FileRef, Kind, ScanRef, UnreadableError


@pytest.fixture(params=["disk", "objects"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on disk, or a prefix in fsspec's store in memory, which answers as S3 does."""
    return str(tmp_path) if request.param == "disk" else f"memory:///{uuid.uuid4().hex}"


def test_files_are_listed_folder_by_folder_and_hidden_ones_left_out(root: str) -> None:
    for name in ("b.png", "a.png", "sub/c.png", ".hidden", ".git/config"):
        storage.put_bytes(storage.join(root, name), b"x")
    listed = [file.uri.removeprefix(root).lstrip("/") for file in storage.list_files(root)]
    assert listed == ["a.png", "b.png", "sub/c.png"]


def test_a_single_file_lists_itself(root: str) -> None:
    uri = storage.join(root, "a.png")
    storage.put_bytes(uri, b"123")
    (file,) = storage.list_files(uri)
    assert file.size == 3
    assert storage.read_bytes(file.uri) == b"123"


def test_a_missing_input_is_an_error(root: str) -> None:
    with pytest.raises(FileNotFoundError):
        list(storage.list_files(storage.join(root, "nothing")))


def test_a_head_is_at_most_the_file(root: str) -> None:
    uri = storage.join(root, "a")
    storage.put_bytes(uri, b"12345")
    assert storage.read_head(uri, 3) == b"123"
    assert storage.read_head(uri, 100) == b"12345"


def test_the_version_changes_with_the_content(root: str) -> None:
    uri = storage.join(root, "a")
    storage.put_bytes(uri, b"1")
    (first,) = storage.list_files(uri)
    assert first == next(storage.list_files(uri))


def test_files_are_read_in_order_as_they_were_listed(root: str) -> None:
    for n in range(5):
        storage.put_bytes(storage.join(root, f"{n}"), b"%d" % n)
    assert list(storage.read_all(list(storage.list_files(root)))) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_file_of_another_size_than_listed_has_changed(root: str) -> None:
    uri = storage.join(root, "a")
    storage.put_bytes(uri, b"12345")
    (file,) = storage.list_files(uri)
    storage.put_bytes(uri, b"123")
    with pytest.raises(UnreadableError, match="from 5 to 3 bytes: run again"):
        storage.read_file(file)
    with pytest.raises(UnreadableError):
        list(storage.read_all([file]))


def test_a_file_of_no_known_size_is_taken_as_it_is(root: str) -> None:
    uri = storage.join(root, "a")
    storage.put_bytes(uri, b"123")
    assert storage.read_file(FileRef(uri=uri, size=0, version="")) == b"123"
    unlisted = ScanRef(kind=Kind.IMAGE, uri=uri, files=(), scan_id="", study_id="", label="")
    assert storage.read_single(unlisted) == b"123"


def test_a_file_says_when_it_was_written(root: str) -> None:
    before = time.time()
    storage.put_bytes(storage.join(root, "a"), b"1")
    (file,) = storage.list_files(root)
    assert file.modified == pytest.approx(before, abs=5)


def test_a_local_folder_that_is_closed_to_us_lists_what_nobody_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/x", "b/y"):
        storage.put_bytes(str(tmp_path / name), b"1")
    scandir = os.scandir

    def closed(path: str | int) -> object:
        if str(path).endswith("/a"):
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    listed = list(storage.list_files(str(tmp_path)))
    assert [file.uri for file in listed] == [str(tmp_path / "a" / "*"), str(tmp_path / "b" / "y")]
    with pytest.raises(OSError):
        storage.read_file(listed[0])
    (failure,) = (item for item in discover([str(tmp_path / "a")]) if isinstance(item, Failure))
    assert failure.uri.endswith("/a/*")
    assert "cannot be opened" in failure.message


def test_a_written_folder_replaces_the_old_one(root: str) -> None:
    uri = storage.join(root, "scan")
    storage.put_folder(uri, {"old": b"1", "commit": b""}, commit="commit")
    storage.put_folder(uri, {"new": b"2", "commit": b""}, commit="commit")
    names = {file.uri.rpartition("/")[2] for file in storage.list_files(uri)}
    assert names == {"new", "commit"}


def test_a_folder_without_its_commit_file_is_refused(root: str) -> None:
    with pytest.raises(ValueError, match="commit"):
        storage.put_folder(storage.join(root, "scan"), {"a": b""}, commit="commit")


def test_nothing_is_left_beside_what_was_written(tmp_path: Path) -> None:
    storage.put_bytes(str(tmp_path / "a"), b"1")
    storage.put_folder(str(tmp_path / "b"), {"c": b""}, commit="c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_deleting_what_is_not_there_is_no_error(root: str) -> None:
    storage.delete_folder(storage.join(root, "nothing"))
    assert not storage.exists(storage.join(root, "nothing"))


def test_local_paths_become_absolute_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a/b") == str(tmp_path / "a" / "b")
    assert storage.absolute(f"file://{tmp_path}/a") == str(tmp_path / "a")
    assert storage.absolute("s3://bucket/a/") == "s3://bucket/a"
