"""Storage: every input and output URI goes through here, local path or object store alike.

URIs are what fsspec understands: a plain path, `file://`, `s3://bucket/key`, and any other
protocol whose fsspec package is installed. Instances of a PACS can be read, and nothing more.
Credentials come from each store's usual environment and never from a URI.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec

from io_adapters import dicomweb
from io_adapters.dicomweb_uri import is_pacs
from io_adapters.prefetch import map_ordered
from io_adapters.scan import FileRef


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
    """Yield every file at or below a URI, folder by folder in name order; hidden ones left out.

    Raises:
        FileNotFoundError: nothing is there.
    """
    fs, root = _open_fs(uri)
    if fs.isfile(root):
        yield _file_ref(fs, root, fs.info(root))
        return
    if not fs.isdir(root):
        raise FileNotFoundError(f"no file or folder at {uri}")
    for folder, subfolders, files in fs.walk(root, detail=True):
        for name in sorted(subfolders):  # walk visits what is left here, in the order it is left
            entry = subfolders.pop(name)
            if not name.startswith("."):
                subfolders[name] = entry
        for name in sorted(files):
            if not name.startswith("."):
                yield _file_ref(fs, f"{folder.rstrip('/')}/{name}", files[name])


def read_bytes(uri: str) -> bytes:
    """Return the whole content of one file, in one request.

    Raises:
        OSError: it is not there or cannot be read.
        ScanError: a PACS does not deliver it.
    """
    if is_pacs(uri):
        return dicomweb.retrieve(uri)
    if is_local(uri):  # fsspec takes a third longer, and series have many files
        return Path(_local_path(uri)).read_bytes()
    fs, path = _open_fs(uri)
    return bytes(fs.cat_file(path))


def read_all(uris: Sequence[str]) -> Iterator[bytes]:
    """Yield the content of files, in order; those of a network are asked for ahead of their turn.

    A local disk answers sooner than a thread that waits for it.

    Raises:
        OSError: one is not there or cannot be read, when its turn comes.
        ScanError: a PACS does not deliver it.
    """
    if all(is_local(uri) for uri in uris):
        return map(read_bytes, uris)
    return map_ordered(read_bytes, uris, ahead=16)


def read_head(uri: str, size: int) -> bytes:
    """Return at most the first `size` bytes of a file.

    Raises:
        OSError: it is not there or cannot be read.
    """
    fs, path = _open_fs(uri)
    return bytes(fs.cat_file(path, start=0, end=size))


def exists(uri: str) -> bool:
    """Tell whether a file or folder is there."""
    fs, path = _open_fs(uri)
    return bool(fs.exists(path))


def put_bytes(uri: str, content: bytes) -> None:
    """Write one file so that a reader sees the old content or the new one, never a part."""
    if not is_local(uri):
        fs, path = _open_fs(uri)
        fs.pipe_file(path, content)
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
    """
    if commit not in files:
        raise ValueError(f"the commit file {commit!r} is not among {sorted(files)}")
    if not is_local(uri):
        delete_folder(uri)
        for name in sorted(files, key=lambda name: name == commit):
            put_bytes(join(uri, name), files[name])
        return
    target = Path(_local_path(uri))
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    for name, content in files.items():
        (partial / name).write_bytes(content)
    delete_folder(uri)
    os.replace(partial, target)  # noqa: PTH105 (a folder onto a free name, atomic)


def delete_folder(uri: str) -> None:
    """Remove a folder and all below it, if it is there."""
    fs, path = _open_fs(uri)
    if is_local(uri):
        shutil.rmtree(path, ignore_errors=True)
    elif fs.exists(path):
        fs.rm(path, recursive=True)


def _open_fs(uri: str) -> tuple[Any, str]:
    fs, path = fsspec.core.url_to_fs(uri)
    return fs, str(path)


def _local_path(uri: str) -> str:
    return uri.removeprefix("file://")


def _file_ref(fs: Any, path: str, info: Mapping[str, Any]) -> FileRef:
    version = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified")
    uri = path if "file" in fs.protocol else str(fs.unstrip_protocol(path))
    return FileRef(uri=uri, size=int(info["size"]), version=str(version).strip('"'))
