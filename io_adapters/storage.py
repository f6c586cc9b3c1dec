"""Storage: every input and output URI goes through here, local path or object store alike.

URIs are what fsspec understands: a plain path, `file://`, `s3://bucket/key`, and any other
protocol whose fsspec package is installed. Instances of a PACS can be read, and nothing more.
Credentials come from each store's usual environment and never from a URI.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec

from io_adapters import dicomweb, object_store
from io_adapters.dicomweb_uri import is_pacs
from io_adapters.fsspec_store import file_ref, walk
from io_adapters.object_store import open_store
from io_adapters.prefetch import map_ordered
from io_adapters.scan import FileRef, ScanRef, StorageError, UnreadableError

__all__ = [
    "StorageError",
    "absolute",
    "delete_folder",
    "exists",
    "is_local",
    "join",
    "list_files",
    "put_bytes",
    "put_folder",
    "read_all",
    "read_bytes",
    "read_file",
    "read_head",
    "read_single",
]

GETS_AT_ONCE = 16
"""As many as keep one core busy over a network that answers within 40 ms."""


def absolute(uri: str) -> str:
    """Return a URI that means the same on every machine of a run: local paths become absolute."""
    if is_local(uri):
        return str(Path(_local_path(uri)).expanduser().resolve())
    return uri.rstrip("/")


def is_local(uri: str) -> bool:
    """Tell whether a URI names a file of this machine."""
    return "://" not in uri or uri.startswith("file://")


def join(uri: str, *parts: str) -> str:
    """Append path parts to a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def list_files(uri: str) -> Iterator[FileRef]:
    """Yield every file at or below a URI, hidden ones left out, always in the same order.

    On a disk that is folder by folder in name order, in S3 the order of keys. A bucket is listed
    page by page, while the files are used.

    Raises:
        FileNotFoundError: nothing is there.
        StorageError: an object store refuses or fails the request.
    """
    if not is_local(uri):
        yield from open_store(uri).list_files(uri)
        return
    root = Path(_local_path(uri)).absolute()
    fs = fsspec.filesystem("file")
    if root.is_file():
        yield file_ref(str(root), fs.info(str(root)))
    elif root.is_dir():
        for path, info in walk(_list_folder, str(root)):
            yield file_ref(path, info)
    else:
        raise FileNotFoundError(f"no file or folder at {uri}")


def read_bytes(uri: str) -> bytes:
    """Return the whole content of one file, in one request.

    Raises:
        OSError: it is not there, or a disk cannot read it.
        ScanError: an object store or a PACS does not deliver it.
    """
    if is_pacs(uri):
        return dicomweb.retrieve(uri)
    if is_local(uri):
        return Path(_local_path(uri)).read_bytes()
    return open_store(uri).read(uri)


def read_file(file: FileRef) -> bytes:
    """Return the content of a file, which is still what was listed.

    Its size is compared, and in S3 its ETag; a file of no known size is not checked.

    Raises:
        OSError: it is not there, or a disk cannot read it.
        UnreadableError: it has changed since it was listed.
        ScanError: an object store or a PACS does not deliver it.
    """
    if is_local(file.uri) or is_pacs(file.uri) or not file.size:
        content = read_bytes(file.uri)
    else:
        content = open_store(file.uri).read(file.uri, version=file.version)
    if file.size and len(content) != file.size:
        raise UnreadableError(
            f"it has changed since it was listed, from {file.size} to {len(content)} bytes: "
            "run again"
        )
    return content


def read_single(ref: ScanRef) -> bytes:
    """Return the content of a scan that is one file; without a `FileRef` nothing is checked.

    Raises:
        OSError: it is not there, or a disk cannot read it.
        ScanError: it has changed since it was listed, or is not delivered.
    """
    return read_file(ref.files[0]) if ref.files else read_bytes(ref.uri)


def read_all(files: Sequence[FileRef]) -> Iterator[bytes]:
    """Yield the content of files, in order; those of a network are asked for ahead of their turn.

    A local disk answers sooner than a thread that waits for it.

    Raises:
        OSError: one is not there, or a disk cannot read it, when its turn comes.
        ScanError: one has changed since it was listed, or is not delivered.
    """
    if all(is_local(file.uri) for file in files):
        return map(read_file, files)
    return map_ordered(read_file, files, threads=GETS_AT_ONCE)


def read_head(uri: str, size: int) -> bytes:
    """Return at most the first `size` bytes of a file.

    Raises:
        OSError: it is not there, or a disk cannot read it.
        StorageError: an object store does not deliver it.
    """
    if not is_local(uri):
        return open_store(uri).read_head(uri, size)
    with Path(_local_path(uri)).open("rb") as file:
        return file.read(size)


def exists(uri: str) -> bool:
    """Tell whether a file or folder is there.

    Raises:
        StorageError: an object store refuses or fails the request.
    """
    return Path(_local_path(uri)).exists() if is_local(uri) else open_store(uri).exists(uri)


def put_bytes(uri: str, content: bytes) -> None:
    """Write one file so that a reader sees the old content or the new one, never a part.

    Raises:
        OSError: a disk cannot write it.
        StorageError: an object store refuses or fails the request.
    """
    if not is_local(uri):
        open_store(uri).put(uri, content)
        return
    target = Path(_local_path(uri))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    partial.write_bytes(content)
    partial.replace(target)


def put_folder(uri: str, files: Mapping[str, bytes], *, commit: str) -> None:
    """Write a folder of files whole, replacing what was there; the file `commit` comes last.

    On a local disk the folder appears under its name at once. In an object store the objects
    appear one by one, so a reader trusts the folder only when `commit` is there.

    Raises:
        OSError: a disk cannot write it.
        StorageError: an object store refuses or fails a request.
    """
    if commit not in files:
        raise ValueError(f"the commit file {commit!r} is not among {sorted(files)}")
    if not is_local(uri):
        object_store.put_folder(uri, files, commit=commit)
        return
    target = Path(_local_path(uri))
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    for name, content in files.items():
        (partial / name).write_bytes(content)
    delete_folder(uri)
    os.replace(partial, target)  # noqa: PTH105 (a folder onto a free name, atomic)


def delete_folder(uri: str) -> None:
    """Remove a folder and all below it, if it is there.

    Raises:
        StorageError: an object store refuses or fails a request.
    """
    if is_local(uri):
        shutil.rmtree(_local_path(uri), ignore_errors=True)
    else:
        object_store.delete_folder(uri)


def _local_path(uri: str) -> str:
    return uri.removeprefix("file://")


def _list_folder(path: str) -> Iterable[Mapping[str, Any]]:
    """Return fsspec's info of what is in a local folder.

    One that is closed to us holds a single file that cannot be read: it is to end as a failure of
    the run, and not unnoticed.
    """
    try:
        entries: Iterable[Mapping[str, Any]] = fsspec.filesystem("file").ls(path, detail=True)
        return entries
    except PermissionError:
        return ({"name": f"{path}/*", "type": "file", "size": 1},)
