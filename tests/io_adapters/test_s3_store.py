"""S3 over HTTP: what is listed, read and written, and in how many requests."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from fake_s3 import Bucket, names, one
from faulty_proxy import Fault
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from io_adapters import s3_store, storage
from io_adapters.scan import StorageError, UnreadableError

BUSY = Fault(status=503, code="SlowDown")


# Listing


def test_a_bucket_is_listed_page_by_page_while_it_is_used(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    bucket.put("in/a", "in/b", "in/c", "in/d", "in/e", "other")
    listing = storage.list_files(f"{bucket.uri}/in")
    assert next(listing).uri == f"{bucket.uri}/in/a"
    assert len(bucket.proxy.asked) == 2  # is it an object? and the first page
    assert [file.uri[-1] for file in listing] == ["b", "c", "d", "e"]
    assert len(bucket.proxy.asked) == 4


def test_a_listing_of_any_length_takes_the_memory_of_a_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def page(n: int) -> dict[str, object]:
        entry = {"Size": 1, "ETag": '"0"', "LastModified": datetime(2026, 1, 1, tzinfo=UTC)}
        contents = [{**entry, "Key": f"in/{n:03}{k:04}"} for k in range(1000)]
        return {"Contents": contents, "IsTruncated": n < 59, "NextContinuationToken": f"{n + 1}"}

    store = s3_store.S3Store()
    call = lambda _, ContinuationToken="0", **__: page(int(ContinuationToken))  # noqa: E731
    monkeypatch.setattr(store._fs, "call_s3", call)
    tracemalloc.start()
    listed = sum(1 for _ in store.list_files("s3://b"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert listed == 60_000
    assert peak < 4 * 2**20


def test_keys_come_in_their_order_without_what_is_hidden(bucket: Bucket) -> None:
    bucket.put(
        *("in/b.png", "in/a/x.png", "in/a.png", "in/.git/config", "in/a/.hidden"),
        *("in/a/..", "inner.png", ".in/x.png"),
    )
    for marker in ("in/", "in/a/"):  # as consoles mark a folder
        bucket.ask("PUT", marker)
    assert names(f"{bucket.uri}/in") == ["a.png", "a/x.png", "b.png"]
    assert names(bucket.uri) == ["in/a.png", "in/a/x.png", "in/b.png", "inner.png"]


def test_a_root_below_a_hidden_folder_is_listed(bucket: Bucket) -> None:
    bucket.put(".cache/in/a")
    assert names(f"{bucket.uri}/.cache/in") == ["a"]


def test_an_object_lists_itself_as_its_prefix_lists_it(bucket: Bucket) -> None:
    before = time.time()
    bucket.put("in/a.png", content=b"123")
    file = one(f"{bucket.uri}/in/a.png")
    assert file == one(f"{bucket.uri}/in")
    assert (file.uri, file.size) == (f"{bucket.uri}/in/a.png", 3)
    assert file.modified == pytest.approx(before, abs=5)


def test_a_missing_prefix_is_no_file_and_an_empty_bucket_has_none(bucket: Bucket) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        names(f"{bucket.uri}/nothing")
    assert names(bucket.uri) == []


def test_a_missing_bucket_is_told(bucket: Bucket) -> None:
    with pytest.raises(StorageError, match="no bucket s3://b-that-is-not-there: check its name"):
        names("s3://b-that-is-not-there/in")
    with pytest.raises(StorageError, match="no bucket"):
        names("s3://No Bucket Is Called So/in")


def test_an_endpoint_that_knows_no_listing_has_no_bucket(bucket: Bucket) -> None:
    bucket.proxy.spoil(Fault(status=404, body=b"<html>nothing here</html>"))
    with pytest.raises(StorageError, match="no bucket"):
        names(f"{bucket.uri}/in")


def test_what_is_there_exists(bucket: Bucket) -> None:
    bucket.put("in/a")
    found = [storage.exists(f"{bucket.uri}{path}") for path in ("/in/a", "/in", "", "/i", "/in/b")]
    assert found == [True, True, True, False, False]


# Reading


def test_an_object_takes_one_request(bucket: Bucket) -> None:
    bucket.put("a")
    file = one(bucket.uri)
    bucket.proxy.asked.clear()
    assert storage.read_bytes(file.uri) == storage.read_file(file) == b"content"
    assert storage.read_head(file.uri, 3) == b"con"
    assert [request.split()[0] for request in bucket.proxy.asked] == ["GET"] * 3


def test_the_head_of_an_empty_object_is_empty(bucket: Bucket) -> None:
    bucket.put("a", content=b"")
    assert storage.read_head(f"{bucket.uri}/a", 3) == b""


def test_the_objects_of_a_series_are_read_at_once_and_come_in_order(bucket: Bucket) -> None:
    for n in range(12):
        bucket.put(f"{n:02}", content=b"%d" % n)
    files = list(storage.list_files(bucket.uri))
    bucket.proxy.spoil(Fault(delay_s=0.4), method="GET", times=8)
    started = time.monotonic()
    assert list(storage.read_all(files)) == [b"%d" % n for n in range(12)]
    assert time.monotonic() - started < 2


def test_an_object_that_changed_since_it_was_listed_is_not_read(bucket: Bucket) -> None:
    bucket.put("a", "b")
    listed = list(storage.list_files(bucket.uri))
    bucket.put("b", content=b"another")  # of the same size
    with pytest.raises(UnreadableError, match="changed since it was listed"):
        list(storage.read_all(listed))


def test_an_answer_with_another_etag_is_not_believed(bucket: Bucket) -> None:
    bucket.put("a")
    file = one(bucket.uri)
    bucket.proxy.spoil(Fault(headers=(("Etag", '"0123"'),)), method="GET")
    with pytest.raises(UnreadableError, match="changed since it was listed"):
        storage.read_file(file)


def test_an_object_of_another_size_than_listed_is_not_believed(bucket: Bucket) -> None:
    bucket.put("a")
    with pytest.raises(UnreadableError, match="from 8 to 7 bytes"):
        storage.read_file(replace(one(bucket.uri), size=8))


def test_a_byte_that_changed_on_its_way_is_noticed(bucket: Bucket) -> None:
    bucket.put("a")
    bucket.proxy.spoil(Fault(garbled=True), method="GET", within="/a", times=1)
    assert storage.read_bytes(f"{bucket.uri}/a") == b"content"
    assert bucket.proxy.count("GET") == 2


# Writing


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("index.html", "text/html; charset=utf-8"),
        ("run.json", "application/json"),
        ("overlay.png", "image/png"),
        ("map.nii.gz", "application/gzip"),
        ("seg.DCM", "application/dicom"),
        ("studies.csv", "text/csv; charset=utf-8"),
        ("scores.parquet", "application/vnd.apache.parquet"),
        ("map.tiff", "image/tiff"),
        ("noname", "application/octet-stream"),
    ],
)
def test_an_object_has_the_type_that_its_name_tells(
    bucket: Bucket, name: str, content_type: str
) -> None:
    bucket.put(name)
    headers = bucket.ask("HEAD", name)
    assert headers["Content-Type"] == content_type
    assert "Content-Encoding" not in headers  # a browser would unpack a map.nii.gz


def test_large_content_goes_up_in_parts_that_are_tried_again_alone(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "PART_BYTES", 5 * 2**20)
    content = bytes(range(256)) * (43 * 2**10)
    bucket.proxy.spoil(BUSY, method="PUT", within="partNumber=2", times=2)
    storage.put_bytes(f"{bucket.uri}/map.png", content)
    assert bucket.proxy.count("PUT") == 3 + 2
    assert storage.read_bytes(f"{bucket.uri}/map.png") == content
    assert bucket.ask("HEAD", "map.png")["Content-Type"] == "image/png"


def test_large_content_that_was_not_kept_whole_is_an_error(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "PART_BYTES", 5 * 2**20)
    bucket.proxy.spoil(Fault(headers=(("Content-Length", "5"),)), method="HEAD")
    with pytest.raises(StorageError, match="did not keep all"):
        storage.put_bytes(f"{bucket.uri}/a", bytes(10 * 2**20))


def test_an_upload_that_fails_leaves_no_object(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "PART_BYTES", 5 * 2**20)
    refused = Fault(status=403, code="AccessDenied")
    bucket.proxy.spoil(refused, method="PUT", within="partNumber=2")
    with pytest.raises(StorageError, match="denies access"):
        storage.put_bytes(f"{bucket.uri}/a", bytes(10 * 2**20))
    assert bucket.proxy.count("DELETE") == 1  # the parts that did arrive
    assert names(bucket.uri) == []


def test_a_new_folder_takes_a_listing_and_a_put_each(bucket: Bucket) -> None:
    files = {"scan.json": b"{}", "map.tiff": b"1", "overlay.png": b"2"}
    storage.put_folder(f"{bucket.uri}/out/scan", files, commit="scan.json")
    methods = [request.split()[0] for request in bucket.asked]
    assert methods == ["GET", "PUT", "PUT", "PUT"]
    assert bucket.asked[-1].endswith("/out/scan/scan.json")


def test_the_old_commit_goes_first_and_the_new_one_comes_last(bucket: Bucket) -> None:
    bucket.put("out/scan.json", "out/old.png", "out/sub/older.png", "out/map.tiff", "outer/x")
    storage.put_folder(
        f"{bucket.uri}/out", {"map.tiff": b"1", "scan.json": b""}, commit="scan.json"
    )
    methods, paths = zip(*(request.split() for request in bucket.asked), strict=True)
    first, then = (body for body in bucket.proxy.bodies if b"<Delete" in body)
    assert methods == ("GET", "POST", "PUT", "POST", "PUT")
    assert b"scan.json" in first and b"map.tiff" not in first
    assert paths[2].endswith("/out/map.tiff")
    assert b"out/old.png" in then and b"out/sub/older.png" in then and b"map.tiff" not in then
    assert paths[4].endswith("/out/scan.json")
    assert names(bucket.uri) == ["out/map.tiff", "out/scan.json", "outer/x"]


def test_a_folder_that_cannot_be_written_whole_has_no_commit(bucket: Bucket) -> None:
    bucket.put("out/scan.json", "out/map.tiff")
    bucket.proxy.spoil(Fault(status=403, code="AccessDenied"), method="PUT", within="b.png")
    files = {"a.png": b"1", "b.png": b"2", "scan.json": b"{}"}
    with pytest.raises(StorageError):
        storage.put_folder(f"{bucket.uri}/out", files, commit="scan.json")
    assert not storage.exists(f"{bucket.uri}/out/scan.json")


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp"), exclude_characters="/"),
    min_size=1,
    max_size=12,
).filter(lambda name: not name.startswith("."))


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(folder=NAMES, name=NAMES.filter(lambda name: name != "c"), content=st.binary(max_size=40))
@example(folder="größe 50%", name="a+b #1?x=y&z.png", content=b"1")
@example(folder="%2F", name="%41", content=b"")
@example(folder="a::b", name="ä" + "a\u0308", content=b"")
def test_what_was_put_is_listed_and_read_under_the_same_name(
    bucket: Bucket, folder: str, name: str, content: bytes
) -> None:
    root = storage.join(bucket.uri, folder)
    storage.put_folder(root, {name: content, "c": b""}, commit="c")
    listed = {file.uri: storage.read_file(file) for file in storage.list_files(root)}
    assert listed == {storage.join(root, "c"): b"", storage.join(root, name): content}
    storage.delete_folder(root)
    assert not storage.exists(root)
