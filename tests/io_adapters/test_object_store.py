"""Which store a URI names, and stores that are reached through plain fsspec."""

from __future__ import annotations

import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from io_adapters import object_store, storage
from io_adapters.fsspec_store import FsspecStore, file_ref, walk
from io_adapters.s3_store import S3Store
from io_adapters.scan import StorageError


class Archive(MemoryFileSystem):
    """A store whose parts a test can close."""

    closed = ""

    def ls(self, path: str, detail: bool = True, **more: object) -> list[dict[str, object]]:
        if self.closed and path.endswith(self.closed):
            raise PermissionError("Doe^Jane may not be seen")
        entries: list[dict[str, object]] = super().ls(path, detail=detail, **more)
        return entries


@pytest.fixture
def root() -> str:
    return f"memory:///{uuid.uuid4().hex}"


def test_a_process_has_one_of_each_store() -> None:
    assert object_store.open_store("s3://a/b") is object_store.open_store("s3://c")
    assert isinstance(object_store.open_store("s3a://a"), S3Store)
    assert isinstance(object_store.open_store("memory://a"), FsspecStore)


@pytest.mark.parametrize(
    ("uri", "package"),
    [("gs://bucket/a", "gcsfs"), ("az://container/a", "adlfs"), ("abfs://container/a", "adlfs")],
)
def test_a_store_whose_package_is_missing_names_it(uri: str, package: str) -> None:
    with pytest.raises(StorageError, match=f"install the Python package {package}"):
        storage.read_bytes(uri)


def test_a_store_that_nobody_knows_is_refused() -> None:
    with pytest.raises(StorageError, match="nowhere:// cannot be used: there is no such store"):
        list(storage.list_files("nowhere://a"))


def test_a_folder_that_may_not_be_listed_is_an_error_and_not_passed_over(root: str) -> None:
    for name in ("a.png", "sub/b.png"):
        storage.put_bytes(f"{root}/{name}", b"1")
    archive = Archive(skip_instance_cache=True)
    assert len(list(FsspecStore(archive).list_files(root))) == 2
    archive.closed = "/sub"
    with pytest.raises(StorageError, match="memory:// denies access") as caught:
        list(FsspecStore(archive).list_files(root))
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_a_file_and_a_folder_of_one_name_are_both_listed() -> None:
    entries = {
        "in": [{"name": "in/a", "type": "directory"}, {"name": "in/a", "type": "file"}],
        "in/a": [{"name": "in/a/b", "type": "file"}],
    }
    assert [path for path, _ in walk(lambda folder: entries[folder], "in")] == ["in/a", "in/a/b"]


def test_the_marker_of_a_folder_is_no_file() -> None:
    entries = {
        "in": [{"name": "in/", "type": "file"}, {"name": "in/in", "type": "directory"}],
        "in/in": [{"name": "in/in", "type": "file"}, {"name": "in/in/x", "type": "file"}],
    }
    assert [path for path, _ in walk(lambda folder: entries[folder], "in")] == ["in/in/x"]


@pytest.mark.parametrize(
    ("info", "version", "modified"),
    [
        ({"mtime": 1.5}, "1.5", 1.5),
        ({"etag": '"e"', "created": 2}, "e", 2.0),
        ({"etag": "e", "mtime": datetime(1970, 1, 2, tzinfo=UTC)}, "e", 86400.0),
        ({"created": "yesterday"}, "yesterday", None),
        ({}, "None", None),
    ],
)
def test_what_stores_call_the_version_and_the_time_is_found(
    info: dict[str, object], version: str, modified: float | None
) -> None:
    file = file_ref("gs://a/b", {"size": 3, **info})
    assert (file.version, file.modified, file.size) == (version, modified, 3)


def test_only_what_is_left_over_is_removed_from_a_folder(root: str) -> None:
    for name in ("out/old", "out/.hidden", "outer"):
        storage.put_bytes(f"{root}/{name}", b"1")
    storage.put_folder(f"{root}/out", {"new": b"2", "commit": b""}, commit="commit")
    listed = [file.uri.removeprefix(f"{root}/") for file in storage.list_files(root)]
    assert listed == ["outer", "out/commit", "out/new"]
    assert not storage.exists(f"{root}/out/.hidden")


def test_an_import_of_storage_imports_no_client_of_a_store() -> None:
    code = "import sys, io_adapters.storage; print({'s3fs', 'botocore'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
