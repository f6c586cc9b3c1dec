"""Objects of any store that fsspec knows: gs://, az://, memory:// and more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Any

from io_adapters.scan import FileRef
from io_adapters.store_errors import ask, store_of

_VERSIONS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")
_TIMES = ("mtime", "LastModified", "last_modified", "created")
"""What stores call them, the better ones first."""

Info = Mapping[str, Any]


class FsspecStore:
    """One store, through the plainest calls of its fsspec package, which has its own retries.

    Args:
        fs: fsspec's file system, without a cache of listings.
    """

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def list_files(self, uri: str) -> Iterator[FileRef]:
        """Yield an object, or what is below a prefix folder by folder; hidden ones left out.

        Raises:
            FileNotFoundError: nothing is there.
            StorageError: the store refuses or fails the request.
        """
        root = self._path(uri)
        if _ask(uri, self._fs.isfile, root):
            yield self._file_ref(root, _ask(uri, self._fs.info, root))
        elif _ask(uri, self._fs.isdir, root):
            for path, info in walk(partial(_ask, uri, self._fs.ls, detail=True), root):
                yield self._file_ref(path, info)
        else:
            raise FileNotFoundError(f"no object or prefix at {uri}")

    def read(self, uri: str, *, version: str = "") -> bytes:
        """Return an object; no version can be asked for, these stores tell it apart from it.

        Raises:
            FileNotFoundError: it is not there.
            StorageError: the store refuses or fails the request.
        """
        del version
        return bytes(_ask(uri, self._fs.cat_file, self._path(uri)))

    def read_head(self, uri: str, size: int) -> bytes:
        """Return at most the first `size` bytes of an object; errors as of `read`."""
        return bytes(_ask(uri, self._fs.cat_file, self._path(uri), start=0, end=size))

    def exists(self, uri: str) -> bool:
        """Tell whether an object, or one below it as a prefix, is there."""
        return bool(_ask(uri, self._fs.exists, self._path(uri)))

    def put(self, uri: str, content: bytes) -> None:
        """Write an object whole.

        Raises:
            StorageError: the store refuses or fails the request.
        """
        _ask(uri, self._fs.pipe_file, self._path(uri), content)

    def names_below(self, uri: str) -> Iterator[str]:
        """Yield the names of all objects below a prefix, hidden ones too, relative to it."""
        folder = f"{self._path(uri)}/"
        for path in _ask(uri, self._fs.find, folder.rstrip("/")):
            if path.startswith(folder):
                yield path.removeprefix(folder)

    def delete(self, folder: str, names: Iterable[str]) -> None:
        """Remove objects below a prefix; one that is not there is removed as well.

        Raises:
            StorageError: the store refuses or fails the request for one of them.
        """
        for name in names:
            with suppress(FileNotFoundError):
                _ask(folder, self._fs.rm_file, f"{self._path(folder)}/{name}")

    def _path(self, uri: str) -> str:
        return str(self._fs._strip_protocol(uri)).rstrip("/")

    def _file_ref(self, path: str, info: Info) -> FileRef:
        return file_ref(str(self._fs.unstrip_protocol(path)), info)


def _ask(uri: str, request: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return ask(store_of(uri), partial(request, *arguments, **named), waits=())


def walk(ls: Callable[[str], Iterable[Info]], folder: str) -> Iterator[tuple[str, Info]]:
    """Yield path and info of all files below a folder that are not hidden.

    The files of a folder come first, then its subfolders, each by name.

    Args:
        ls: Lists a folder: "name", "type" and more of each entry.
        folder: Where to begin.
    """
    subfolders = []
    for info in sorted(ls(folder), key=itemgetter("name")):
        path = info["name"].rstrip("/")
        if path.rpartition("/")[2].startswith(".") or path == folder:  # the folder's own marker
            continue
        if info["type"] == "directory":
            subfolders.append(path)
        else:
            yield path, info
    for subfolder in subfolders:
        yield from walk(ls, subfolder)


def file_ref(uri: str, info: Info) -> FileRef:
    """Return what is known of a file from fsspec's info of it."""
    version = next((info[name] for name in _VERSIONS if info.get(name)), None)
    modified = next((info[name] for name in _TIMES if info.get(name)), None)
    if isinstance(modified, datetime):
        modified = modified.timestamp()
    return FileRef(
        uri=uri,
        size=int(info["size"]),
        version=str(version).strip('"'),
        modified=float(modified) if isinstance(modified, int | float) else None,
    )
