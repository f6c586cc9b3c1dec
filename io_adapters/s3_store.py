"""Objects of S3 and of what speaks like it, through s3fs.

Endpoint, region, profile and credentials come from where AWS' own programs take them, and from
fsspec's configuration (FSSPEC_S3_ENDPOINT_URL, FSSPEC_S3_PROFILE, FSSPEC_S3_ANON, …).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import fsspec
from fsspec.asyn import sync

from io_adapters.scan import FileRef, StorageError, UnreadableError
from io_adapters.store_errors import (
    PartRefusedError,
    RefusedError,
    ask,
    code_of,
    no_bucket,
    store_of,
)

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 15
"""Between two parts of an answer."""
ATTEMPTS = 5
"""At one request, with growing waits between them: a dead server is given up within 90 s."""
CONNECTIONS = 32
PART_BYTES = 16 * 2**20
"""Of an upload; content of twice as much and more goes up in parts, each tried again alone."""
PARTS_AT_ONCE = 4
_KEYS_PER_DELETE = 1000

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".tiff": "image/tiff",
    ".gz": "application/gzip",
    ".dcm": "application/dicom",
}
"""By the ends of names: what a browser does with an object depends on it."""


class S3Store:
    """All buckets that one endpoint and one set of credentials open; safe to use in threads."""

    def __init__(self) -> None:
        for name in ("botocore", "aiobotocore", "s3fs"):  # when asked for all, they log signatures
            logger = logging.getLogger(name)
            logger.setLevel(max(logger.level, logging.WARNING))
        self._fs = fsspec.filesystem(
            "s3",
            skip_instance_cache=True,
            config_kwargs={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": READ_TIMEOUT_S,
                "max_pool_connections": CONNECTIONS,
                "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
                **fsspec.config.conf.get("s3", {}).get("config_kwargs", {}),
            },
        )
        self._fs.retries = 1  # s3fs would make five times as many attempts of botocore's

    def list_files(self, uri: str) -> Iterator[FileRef]:
        """Yield an object, or what is below a prefix in the order of keys; hidden ones left out.

        A page of a thousand keys is asked for when it is needed, and then forgotten.

        Raises:
            FileNotFoundError: nothing is there.
            StorageError: the store refuses or fails the request.
        """
        bucket, key = self._place(uri)
        scheme = uri.partition("://")[0]
        if key and (entry := self._head(bucket, key)):
            yield _file_ref(f"{scheme}://{bucket}/{key}", entry, entry["ContentLength"])
            return
        prefix, found = f"{key}/" if key else "", False
        for entry in self._entries(bucket, prefix):
            found = True
            if not _is_hidden(entry["Key"].removeprefix(prefix)):
                yield _file_ref(f"{scheme}://{bucket}/{entry['Key']}", entry, entry["Size"])
        if key and not found:
            raise FileNotFoundError(f"no object or prefix at {uri}")

    def read(self, uri: str, *, version: str = "") -> bytes:
        """Return an object, in one request.

        Args:
            uri: Where it is.
            version: The ETag it is to have, if one is known.

        Raises:
            UnreadableError: it has another one by now.
            FileNotFoundError: it is not there.
            StorageError: the store refuses or fails the request.
        """
        return ask(store_of(uri), partial(self._get, uri, version))

    def read_head(self, uri: str, size: int) -> bytes:
        """Return at most the first `size` bytes of an object; errors as of `read`."""
        return ask(store_of(uri), partial(self._get, uri, Range=f"bytes=0-{size - 1}"))

    def exists(self, uri: str) -> bool:
        """Tell whether an object, or one below it as a prefix, is there."""
        bucket, key = self._place(uri)
        if key and self._head(bucket, key):
            return True
        prefix = f"{key}/" if key else ""
        return bool(self._page(bucket, prefix, MaxKeys=1).get("Contents")) or not key

    def put(self, uri: str, content: bytes) -> None:
        """Write an object whole, with the content type that its name tells.

        Raises:
            StorageError: the store refuses or fails the request, or did not keep all.
        """
        bucket, key = self._place(uri)
        ending = PurePosixPath(key).suffix.lower()
        put = partial(
            self._fs.pipe_file,
            f"{bucket}/{key}",
            content,
            chunksize=PART_BYTES,
            max_concurrency=PARTS_AT_ONCE,
            ContentType=_CONTENT_TYPES.get(ending, "application/octet-stream"),
        )
        ask(store_of(uri), put)
        if len(content) < 2 * PART_BYTES:
            return
        kept = self._head(bucket, key)  # the ETag of an upload in parts is no checksum, or empty
        if kept is None or kept["ContentLength"] != len(content):
            raise StorageError(f"{store_of(uri)} did not keep all that was uploaded: run again")

    def names_below(self, uri: str) -> Iterator[str]:
        """Yield the names of all objects below a prefix, hidden ones too, relative to it."""
        bucket, key = self._place(uri)
        for entry in self._entries(bucket, f"{key}/"):
            yield entry["Key"].removeprefix(f"{key}/")

    def delete(self, folder: str, names: Iterable[str]) -> None:
        """Remove objects below a prefix; one that is not there is removed as well.

        Raises:
            StorageError: the store refuses or fails the request for one of them.
        """
        bucket, key = self._place(folder)
        keys = (f"{key}/{name}" for name in names)
        while batch := list(islice(keys, _KEYS_PER_DELETE)):
            ask(store_of(folder), partial(self._delete, bucket, batch))

    def _place(self, uri: str) -> tuple[str, str]:
        """Return the bucket, or the ARN of an access point, and the key."""
        bucket, key, _ = self._fs.split_path(uri)
        return str(bucket), str(key).rstrip("/")

    def _entries(self, bucket: str, prefix: str) -> Iterator[Mapping[str, Any]]:
        page = self._page(bucket, prefix)
        yield from page.get("Contents", ())
        while page.get("IsTruncated"):
            page = self._page(bucket, prefix, ContinuationToken=page["NextContinuationToken"])
            yield from page.get("Contents", ())

    def _page(self, bucket: str, prefix: str, **more: Any) -> Mapping[str, Any]:
        request = partial(self._fs.call_s3, "list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        try:
            page: Mapping[str, Any] = ask(f"s3://{bucket}", request)
            return page
        except FileNotFoundError:  # where there is a bucket, a listing of nothing is empty
            raise no_bucket(f"s3://{bucket}") from None

    def _head(self, bucket: str, key: str) -> Mapping[str, Any] | None:
        """Return what is said of an object, None where there is none, or so it seems.

        Who may not list a bucket is denied what is not there, and a refusal has no reason here: a
        listing tells all of it.
        """
        request = partial(self._fs.call_s3, "head_object", Bucket=bucket, Key=key)
        try:
            entry: Mapping[str, Any] = ask(f"s3://{bucket}", request)
            return entry
        except (FileNotFoundError, RefusedError):
            return None

    def _get(self, uri: str, version: str = "", **more: Any) -> bytes:
        bucket, key = self._place(uri)
        try:
            answer = self._fs.call_s3("get_object", Bucket=bucket, Key=key, **more)
        except OSError as error:
            if code_of(error) == "InvalidRange":  # the head of an empty object
                return b""
            raise
        if version and version != _version(answer):
            self._fs.loop.call_soon_threadsafe(answer["Body"].close)
            raise UnreadableError("it has changed since it was listed: run again")
        content: bytes = sync(self._fs.loop, answer["Body"].read)
        return content

    def _delete(self, bucket: str, keys: list[str]) -> None:
        wanted = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = self._fs.call_s3("delete_objects", Bucket=bucket, Delete=wanted)
        for refused in answer.get("Errors", ()):
            raise PartRefusedError(refused)


def _is_hidden(relative: str) -> bool:
    """Tell whether a key is to be left out: the marker of a folder, or with a dot before a name."""
    return not relative or relative.endswith("/") or f"/{relative}".find("/.") >= 0


def _file_ref(uri: str, entry: Mapping[str, Any], size: int) -> FileRef:
    modified = entry["LastModified"].timestamp()
    return FileRef(uri=uri, size=int(size), version=_version(entry), modified=modified)


def _version(answer: Mapping[str, Any]) -> str:
    return str(answer.get("ETag", "")).strip('"')
