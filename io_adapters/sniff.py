"""What a file is, from its first bytes: names lie, and DICOM files often have none that says so."""

from __future__ import annotations

import zlib
from pathlib import PurePosixPath

from io_adapters.scan import Kind, UnreadableError

HEAD_BYTES = 32 * 1024
"""What is read of a file to recognise it; holds the DICOM attributes we group by, as a rule."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
NIFTI_SUFFIXES = frozenset({".nii", ".nii.gz", ".mgh", ".mgz"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
_DOCUMENTS = ".txt .md .rst .log .pdf .doc .docx .xls .xlsx .ppt .pptx .html .htm .css .js .xml"
_TABLES = ".json .jsonl .csv .tsv .yaml .yml .toml .ini .cfg .cff .bval .bvec .db .parquet"
_PROGRAMS = ".py .ipynb .m .sh .bat .npy .npz .mat .pkl .md5 .sha1 .sha256"
_ARCHIVES = ".gz .zip .tar .tgz .bz2 .xz .7z .rar"
IGNORED_SUFFIXES = frozenset(" ".join([_DOCUMENTS, _TABLES, _PROGRAMS, _ARCHIVES]).split())
IGNORED_NAMES = frozenset({"readme", "changes", "license", "licence", "version", "makefile"})

_SIGNATURES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
)
_KINDS = {Kind.DICOM: "DICOM", Kind.NIFTI: "NIfTI or MGH", Kind.IMAGE: "an image"}
_OTHERS = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "gzip-compressed data",
    b"GIF8": "a GIF image",
    b"NRRD": "an NRRD volume",
    b"\x89HDF": "an HDF5 file",
    b"\x5c\x01\0\0": "an Analyze header, whose voxels are in a file of their own",
    b"\0\0\x01\x5c": "an Analyze header, whose voxels are in a file of their own",
}


def sniff(head: bytes) -> Kind | None:
    """Return the kind of scan a file's first bytes announce, or None for anything else.

    DICOM comes first: its free preamble may hold the signature of another format.
    """
    if head[128:132] == b"DICM":
        return Kind.DICOM
    if head.startswith(_SIGNATURES) or _is_bmp(head):
        return Kind.IMAGE
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Kind.IMAGE
    volume = _first_inflated(head) if head[:2] == b"\x1f\x8b" else head
    return Kind.NIFTI if _is_nifti(volume) or _is_mgh(volume) else None


def kind_named(uri: str) -> Kind | None:
    """Return the kind of scan that a file's name promises, None for DICOM and for no promise.

    DICOM files are looked into anyway, to learn which belong together.
    """
    ending = suffix(PurePosixPath(uri).name)
    if ending in IMAGE_SUFFIXES:
        return Kind.IMAGE
    return Kind.NIFTI if ending in NIFTI_SUFFIXES else None


def check_kind(kind: Kind, uri: str, content: bytes) -> None:
    """Check that a file is of the kind that it was taken for, maybe by its name alone.

    Raises:
        UnreadableError: it is of another.
    """
    head = content[:HEAD_BYTES]
    if sniff(head) is not kind:
        raise UnreadableError(mismatch(uri, head))


def mismatch(uri: str, head: bytes) -> str:
    """Say what a file holds, and what its name promises if that is something else."""
    ending = suffix(PurePosixPath(uri).name)
    content = f"the content is {describe(head)}"
    if ending not in IMAGE_SUFFIXES | NIFTI_SUFFIXES | DICOM_SUFFIXES:
        return content
    remedy = "; rename it" if sniff(head) else ""
    return f"named {ending}, but {content}{remedy}"


def describe(head: bytes) -> str:
    """Return in words what a file holds."""
    if not head:
        return "empty"
    if kind := sniff(head):
        return _KINDS[kind]
    for signature, words in _OTHERS.items():
        if head.startswith(signature):
            return words
    return "text" if is_text(head) else "of no format that is handled"


def is_text(head: bytes) -> bool:
    """Tell whether bytes are text: UTF-8 without control characters."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # not just a character that the end of the head cuts
            return False
        text = head[: error.start].decode()
    return all(character >= " " or character in "\t\n\r\f" for character in text)


def suffix(name: str) -> str:
    """Return the lower-case suffix of a file name, ".nii.gz" whole, "" where there is none."""
    lower = name.lower()
    if lower.endswith(".nii.gz"):
        return ".nii.gz"
    stem, dot, last = lower.rpartition(".")
    return dot + last if stem else ""


def _is_bmp(head: bytes) -> bool:
    # Two letters alone would be the start of many a text.
    header_size = int.from_bytes(head[14:18], "little")
    return head[:2] == b"BM" and header_size in {12, 40, 52, 56, 64, 108, 124}


def _is_nifti(head: bytes) -> bool:
    return head[344:348] in {b"n+1\0", b"ni1\0"} or head[4:8] in {b"n+2\0", b"ni2\0"}


def _is_mgh(head: bytes) -> bool:
    # FreeSurfer's volumes have no signature: version, three lengths, frames and type are numbers.
    version, *lengths, frames, kind = (
        int.from_bytes(head[start : start + 4], "big") for start in range(0, 24, 4)
    )
    plausible = all(0 < length < 2**15 for length in lengths) and 0 < frames < 2**15
    return version == 1 and plausible and kind in {0, 1, 3, 4} and len(head) >= 284


def _first_inflated(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(head, 1024)
    except zlib.error:
        return b""
