"""The bytes of a DICOM file as its parser may have them: not inflated too far, not copied twice."""

from __future__ import annotations

import io
import zlib

from pydicom.uid import DeflatedExplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from io_adapters.scan import UnreadableError, UnsupportedError

MAX_INFLATED = 64 * 2**20
"""Inflating comes before anything else, so it has to stay small."""
_LARGE = 2**18
"""Bytes: pixels, and nothing else that is ever looked at."""
_FILE_META_GROUP = b"\x02\x00"
_LONG = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
"""Types of elements whose length takes four bytes, after two that are empty."""


class DicomSource(io.BytesIO):
    """A file for pydicom's parser: large values are views of the file's bytes, not copies.

    Args:
        content: The file.

    Raises:
        UnreadableError: it ends before its first attribute.
        UnsupportedError: it is deflated, and inflates beyond the limit.
        zlib.error: it says that it is deflated, and is not.
    """

    def __init__(self, content: bytes) -> None:
        _check_deflated(content)
        super().__init__(content)
        self._content = memoryview(content)

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes; a memoryview of them, where they are many."""
        if size is None or size < _LARGE:
            return super().read(size)
        start = self.tell()
        end = self.seek(min(start + size, len(self._content)))
        return self._content[start:end]  # type: ignore[return-value]


def _check_deflated(content: bytes) -> None:
    """Refuse a deflated file that inflates beyond the limit, before the parser inflates it."""
    start = _end_of_file_meta(content)
    if content.find(DeflatedExplicitVRLittleEndian.encode(), 0, start) < 0:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(memoryview(content)[start:], MAX_INFLATED)
    if inflater.unconsumed_tail:
        raise UnsupportedError(
            f"the deflated file holds more than the {MAX_INFLATED >> 20} MB that are read"
        )


def _end_of_file_meta(content: bytes) -> int:
    """Return where the file meta information ends, by its elements as the parser takes it.

    What the file announces as their common length, no parser believes.
    """
    position = 132 if content[128:132] == b"DICM" else 0
    while content[position : position + 2] == _FILE_META_GROUP:
        value_type = content[position + 4 : position + 6]
        at, size = (8, 4) if value_type in _LONG else (6, 2) if value_type.isalpha() else (4, 4)
        length = int.from_bytes(content[position + at : position + at + size], "little")
        position += at + size + length
    if position > len(content):
        raise UnreadableError("the DICOM meta information is cut short")
    return position
