"""Object stores: which one a URI names, and how a folder is written into one.

Nothing here locks, and no request is conditional: not every store obeys a condition, and one with
versions lets both writers win. Names and contents are the same whoever writes them and however
often; the commit object comes last.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from threading import Lock
from typing import Protocol

import fsspec
from fsspec.registry import known_implementations

from io_adapters.fsspec_store import FsspecStore
from io_adapters.prefetch import map_ordered
from io_adapters.s3_store import S3Store
from io_adapters.scan import FileRef, StorageError

PUTS_AT_ONCE = 8


class ObjectStore(Protocol):
    """What is asked of a store; `S3Store` and `FsspecStore` say how each call behaves."""

    def list_files(self, uri: str) -> Iterator[FileRef]:
        """Yield an object, or those below a prefix that are not hidden."""

    def read(self, uri: str, *, version: str = "") -> bytes:
        """Return an object, in the version asked for where the store tells versions."""

    def read_head(self, uri: str, size: int) -> bytes:
        """Return at most the first bytes of an object."""

    def exists(self, uri: str) -> bool:
        """Tell whether an object, or one below it as a prefix, is there."""

    def put(self, uri: str, content: bytes) -> None:
        """Write an object whole."""

    def names_below(self, uri: str) -> Iterator[str]:
        """Yield the names of all objects below a prefix, relative to it."""

    def delete(self, folder: str, names: Iterable[str]) -> None:
        """Remove objects below a prefix, there or not."""


_stores: dict[tuple[object, ...], ObjectStore] = {}
_lock = Lock()


def open_store(uri: str) -> ObjectStore:
    """Return the store that a URI names; a process has one of each, for all its threads.

    Raises:
        StorageError: nothing here speaks to such a store.
    """
    scheme = uri.partition("://")[0]
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError):
        raise StorageError(f"{scheme}:// cannot be used: {_remedy(scheme)}") from None
    options = kind._get_kwargs_from_urls(uri) if scheme not in _S3_SCHEMES else {}
    key = (os.getpid(), scheme, *sorted(options.items()))
    with _lock:
        if key not in _stores:
            _stores[key] = _open(scheme, options)
        return _stores[key]


def put_folder(uri: str, files: Mapping[str, bytes], *, commit: str) -> None:
    """Replace all objects below a prefix.

    The old commit object goes first and the new one comes last, so that whoever finds one finds
    all that belongs to it. A prefix that was empty takes one listing, and one put for each file.

    Args:
        uri: The prefix.
        files: Contents by name.
        commit: The name among them that comes last.

    Raises:
        StorageError: the store refuses or fails a request; the folder has no commit then.
    """
    store = open_store(uri)
    old = set(store.names_below(uri))
    if commit in old:
        store.delete(uri, [commit])
    others = [name for name in files if name != commit]
    put = partial(_put, store, uri, files)
    for _ in map_ordered(put, others, threads=PUTS_AT_ONCE):
        pass
    if left := old - files.keys():
        store.delete(uri, sorted(left))
    put(commit)


def delete_folder(uri: str) -> None:
    """Remove all objects below a prefix, if there are any.

    Raises:
        StorageError: the store refuses or fails a request.
    """
    store = open_store(uri)
    store.delete(uri, list(store.names_below(uri)))


_S3_SCHEMES = frozenset({"s3", "s3a"})


def _open(scheme: str, options: Mapping[str, object]) -> ObjectStore:
    if scheme in _S3_SCHEMES:
        return S3Store()
    return FsspecStore(fsspec.filesystem(scheme, use_listings_cache=False, **options))


def _put(store: ObjectStore, folder: str, files: Mapping[str, bytes], name: str) -> None:
    store.put(f"{folder.rstrip('/')}/{name}", files[name])


def _remedy(scheme: str) -> str:
    package = known_implementations.get(scheme, {}).get("class", "").partition(".")[0]
    if not package:
        return "there is no such store; use a path, s3://, gs:// or az://"
    if package == "fsspec":
        return "what fsspec needs for it is not installed"
    return f"install the Python package {package} on every machine of the run"
