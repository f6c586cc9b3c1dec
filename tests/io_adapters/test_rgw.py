"""Storage on a real S3 server, compared with what another client finds there."""

from __future__ import annotations

import os
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import fsspec
import pytest
from ceph import Rgw, needs_rgw

from io_adapters import object_store, storage
from io_adapters.scan import UnreadableError

pytestmark = needs_rgw

ODD_KEYS = (
    "a b.png",
    "größe/日本.png",
    "plus+and&percent%20.png",
    "what?.png",
    "hash#1.png",
    "quote'\"s.png",
    "[1]*{2}.png",
    "back\\slash.png",
    "semi;colon:equals=at@.png",
    "e\u0301.png",  # not composed, unlike the next
    "\u00e9.png",
)


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A bucket, seen by the code under test and past it."""

    rgw: Rgw
    name: str

    def uri(self, key: str = "") -> str:
        return f"s3://{self.name}/{key}".rstrip("/")

    def put(self, **objects: bytes) -> None:
        self.rgw.put(self.name, objects.items())

    def files(self, prefix: str = "") -> dict[str, bytes]:
        return self.rgw.files(self.name, prefix)


@pytest.fixture(scope="module")
def reached(rgw: Rgw) -> Iterator[Rgw]:
    """The server, with its credentials in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        use(rgw, patch)
        yield rgw


def use(rgw: Rgw, patch: pytest.MonkeyPatch, **different: str) -> None:
    """Reach a server with clients that know nothing of what the environment was before."""
    patch.setattr(object_store, "_stores", {})
    for name, value in (rgw.env | different).items():
        patch.setenv(name, value)


@pytest.fixture
def bucket(reached: Rgw) -> Bucket:
    name = f"zsad-{uuid.uuid4().hex}"
    reached.make_bucket(name)
    return Bucket(rgw=reached, name=name)


def test_what_is_put_is_what_others_read(bucket: Bucket) -> None:
    storage.put_bytes(bucket.uri("a/b.bin"), b"\x00\xff\r\n")
    storage.put_bytes(bucket.uri("a/empty"), b"")
    assert bucket.files() == {"a/b.bin": b"\x00\xff\r\n", "a/empty": b""}


def test_what_others_put_is_what_is_read(bucket: Bucket) -> None:
    bucket.put(some=b"12345", empty=b"")
    assert storage.read_bytes(bucket.uri("some")) == b"12345"
    assert storage.read_bytes(bucket.uri("empty")) == b""
    assert storage.read_head(bucket.uri("some"), 3) == b"123"
    assert storage.read_head(bucket.uri("some"), 100) == b"12345"
    assert storage.read_head(bucket.uri("empty"), 3) == b""


def test_a_listing_tells_size_time_and_version(bucket: Bucket) -> None:
    bucket.put(some=b"12345")
    (listed,) = storage.list_files(bucket.uri())
    entry = bucket.rgw.listing(bucket.name)["some"]
    assert listed.uri == bucket.uri("some")
    assert listed.size == 5
    assert listed.version == entry["ETag"].strip('"')
    assert listed.modified == pytest.approx(entry["LastModified"].timestamp())
    (alone,) = storage.list_files(listed.uri)
    assert (alone.uri, alone.size, alone.version) == (listed.uri, listed.size, listed.version)
    assert alone.modified == listed.modified // 1, "an answer about one object has whole seconds"


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_key_may_hold_any_character(bucket: Bucket, key: str) -> None:
    storage.put_bytes(bucket.uri(f"in/{key}"), key.encode())
    assert bucket.files() == {f"in/{key}": key.encode()}
    (listed,) = storage.list_files(bucket.uri("in"))
    assert listed.uri == bucket.uri(f"in/{key}")
    assert storage.read_file(listed) == key.encode()
    assert storage.exists(listed.uri)
    storage.delete_folder(bucket.uri("in"))
    assert bucket.files() == {}


def test_a_listing_of_several_pages_is_whole_and_in_order(bucket: Bucket) -> None:
    keys = [f"in/{n:04}.png" for n in range(1100)]
    bucket.rgw.put(bucket.name, ((key, b"x") for key in reversed(keys)))
    listed = storage.list_files(bucket.uri("in"))
    assert [file.uri for file in listed] == [bucket.uri(key) for key in keys]
    storage.delete_folder(bucket.uri("in"))
    assert bucket.rgw.listing(bucket.name) == {}


def test_a_prefix_is_a_folder_and_not_the_begin_of_a_name(bucket: Bucket) -> None:
    bucket.rgw.put(bucket.name, [("scan/a", b"1"), ("scan2/a", b"2"), ("scan", b"3")])
    assert [file.uri for file in storage.list_files(bucket.uri("scan/"))] == [bucket.uri("scan")]
    storage.delete_folder(bucket.uri("scan"))
    assert bucket.files() == {"scan": b"3", "scan2/a": b"2"}
    assert storage.exists(bucket.uri("scan2"))
    assert not storage.exists(bucket.uri("sca"))


def test_markers_of_folders_and_hidden_objects_are_left_out(bucket: Bucket) -> None:
    keys = ("in/", "in/a", "in/.b", "in/.git/c", "in/sub/", "in/sub/d")
    bucket.rgw.put(bucket.name, ((key, b"") for key in keys))
    listed = [file.uri for file in storage.list_files(bucket.uri("in"))]
    assert listed == [bucket.uri("in/a"), bucket.uri("in/sub/d")]


def test_a_missing_prefix_is_an_error(bucket: Bucket) -> None:
    with pytest.raises(FileNotFoundError):
        list(storage.list_files(bucket.uri("nothing")))
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(bucket.uri("nothing"))


def test_a_written_folder_replaces_the_old_one_and_its_commit_comes_last(bucket: Bucket) -> None:
    uri = bucket.uri("scans/study/scan")
    old = {"map.tiff": b"old", "sc_001.dcm": b"old", "scan.json": b"{}"}
    new = {"scan.json": b"{}", "map.tiff": b"new", "overlay.png": b"new"}
    for files in (old, new):
        storage.put_folder(uri, files, commit="scan.json")
        stored = {f"scans/study/scan/{name}": content for name, content in files.items()}
        assert bucket.files() == stored
        times = {k: v["LastModified"] for k, v in bucket.rgw.listing(bucket.name).items()}
        assert max(times, key=times.__getitem__).endswith("scan.json")


def test_an_object_that_changed_since_it_was_listed_is_not_read(bucket: Bucket) -> None:
    bucket.put(same_size=b"1234", other_size=b"1234")
    listed = list(storage.list_files(bucket.uri()))
    assert list(storage.read_all(listed)) == [b"1234", b"1234"]
    bucket.put(same_size=b"4321", other_size=b"12345")
    for file in listed:
        with pytest.raises(UnreadableError, match="changed since it was listed"):
            storage.read_file(file)


def test_a_large_object_goes_up_in_parts_and_comes_back_whole(bucket: Bucket) -> None:
    content = os.urandom(1 << 20) * 60
    storage.put_bytes(bucket.uri("large"), content)
    (listed,) = storage.list_files(bucket.uri())
    assert listed.version.partition("-")[2], "an ETag of several parts ends with their number"
    assert listed.size == len(content)
    assert storage.read_file(listed) == content


@pytest.mark.parametrize(
    "different",
    [{"AWS_SECRET_ACCESS_KEY": "CANARYWRONG"}, {"AWS_ACCESS_KEY_ID": "CANARYNOBODY"}],
    ids=["secret", "id"],
)
def test_wrong_credentials_are_an_error_without_them(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, different: dict[str, str]
) -> None:
    bucket.put(a=b"1")
    use(bucket.rgw, monkeypatch, **different)
    for request in (
        lambda: storage.read_bytes(bucket.uri("a")),
        lambda: storage.put_bytes(bucket.uri("a"), b"2"),
        lambda: storage.exists(bucket.uri("a")),
        lambda: list(storage.list_files(bucket.uri())),
    ):
        with pytest.raises(storage.StorageError, match=bucket.name) as raised:
            request()
        told = "".join(traceback.format_exception(raised.value))
        assert "CANARY" not in told
    assert bucket.files() == {"a": b"1"}


def test_a_missing_bucket_is_an_error_that_names_it(reached: Rgw) -> None:
    for request in (
        lambda: list(storage.list_files("s3://no-such-bucket/in")),
        lambda: storage.put_bytes("s3://no-such-bucket/a", b"1"),
    ):
        with pytest.raises(storage.StorageError, match="s3://no-such-bucket"):
            request()


def test_a_public_bucket_needs_no_credentials(
    reached: Rgw, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached.make_bucket("public", public=True)
    reached.put("public", [("a", b"1")])
    use(reached, monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": True})  # as FSSPEC_S3_ANON=true does
    assert storage.read_bytes("s3://public/a") == b"1"


def test_objects_have_the_content_type_of_their_names(bucket: Bucket) -> None:
    """A bucket serves the report: a browser believes this, not the name."""
    types = {
        "index.html": "text/html; charset=utf-8",
        "overlay.png": "image/png",
        "scan.json": "application/json",
        "map.nii.gz": "application/gzip",
    }
    for name, content_type in types.items():
        storage.put_bytes(bucket.uri(name), b"x")
        stored = bucket.rgw.client.head_object(Bucket=bucket.name, Key=name)
        assert stored["ContentType"] == content_type
        assert "ContentEncoding" not in stored
