"""Every DICOM file that comes with pydicom and nibabel: a picture of the right shape, or a reason.

Which values the pictures have is the business of the tests of codecs and of the case table.
"""

from __future__ import annotations

import gzip
import re
from fnmatch import fnmatch
from pathlib import Path

import dicom_files as files
import nibabel
import numpy as np
import pydicom
import pytest

from io_adapters.readers import read_scan
from io_adapters.scan import Kind, Scan, ScanError

PYDICOM = Path(pydicom.__file__).parent / "data"
NIBABEL = Path(nibabel.__file__).parent
NO_SOP_CLASS = "cut short, or names no SOP class"
CUT_SHORT = "cut short"

REASONS = {
    # no images
    "palettes/*.dcm": "Color Palette Storage has no pixels",
    "reportsi*.dcm": "Basic Text SR Storage has no pixels",
    "test-SR.dcm": "Comprehensive SR Storage has no pixels",
    "waveform_ecg.dcm": "Waveform Storage has no pixels",
    "rtplan*.dcm": "RT Plan Storage has no pixels",
    "rtstruct.dcm": "RT Structure Set Storage has no pixels",
    "ExplVR_*EndNoMeta.dcm": "RT Ion Plan Storage has no pixels",
    "liver_*1frame.dcm": "Segmentation Storage is not a picture",
    "dicomdirtests/TINY_ALPHA/PT*": "CT Image Storage has no pixels",
    "*DICOMDIR*": NO_SOP_CLASS,
    # no DICOM
    "*README*": NO_SOP_CLASS,
    "*.dump": NO_SOP_CLASS,
    "*.icc": NO_SOP_CLASS,
    "zipMR.gz": NO_SOP_CLASS,
    # headers alone, of tests for parsers
    "charset_files/chrSQ*": NO_SOP_CLASS,
    "charset_files/chrJapMulti*": CUT_SHORT,
    "charset_files/chrKoreanMulti*": CUT_SHORT,
    "UN_sequence.dcm": NO_SOP_CLASS,
    "empty_charset_LEI.dcm": NO_SOP_CLASS,
    "meta_missing_tsyntax.dcm": NO_SOP_CLASS,
    "no_meta*.dcm": NO_SOP_CLASS,
    "*priv_SQ.dcm": NO_SOP_CLASS,
    "nicom/tests/data/decimal_rescale.dcm": NO_SOP_CLASS,
    "nicom/tests/data/csa_slice_norm.dcm": CUT_SHORT,
    # broken
    "MR_truncated.dcm": "8130 of 8192 bytes of pixels are left",
    "badVR.dcm": "number of frames is none",
    "JPEG2000-embedded-sequence-delimiter.dcm": "pixel data .* cannot be parsed",
    "*tests/data/[01].dcm": "256x256 pixels are no mosaic of 48 slices",
}
"""What the message says of a file that is no picture."""

MOSAICS = {"siemens_dwi_*.gz": (48, 128, 128)}


def packaged_files() -> list[Path]:
    """Return all files that are or might be DICOM."""
    found = [path for path in PYDICOM.rglob("*") if path.is_file()]
    found += [*NIBABEL.rglob("*.dcm"), *NIBABEL.rglob("*.dcm.gz")]
    code = {".py", ".pyc", ".json", ".txt"}
    return sorted(path for path in found if path.suffix not in code)


FILES = packaged_files()


def name_of(path: Path) -> str:
    """Return the path inside its package, without the folder that most are in."""
    root = PYDICOM if PYDICOM in path.parents else NIBABEL
    return str(path.relative_to(root)).removeprefix("test_files/")


def matching(name: str) -> list[str]:
    return [pattern for pattern in REASONS if fnmatch(name, pattern)]


def shape_of(name: str, content: bytes) -> tuple[int, ...]:
    """Return the shape that the header gives the slices."""
    for pattern, shape in MOSAICS.items():
        if fnmatch(Path(name).name, pattern):
            return shape
    header = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content), stop_before_pixels=True)
    colour = header.PhotometricInterpretation.startswith(("RGB", "YBR", "PALETTE"))
    size = int(header.get("NumberOfFrames") or 1), header.Rows, header.Columns
    return (*size, 3) if colour else size


def read(folder: Path, content: bytes) -> Scan:
    path = folder / "file"
    path.write_bytes(content)
    return read_scan(files.ref_of(Kind.DICOM, path))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_packaged_file_is_a_picture_or_there_is_a_reason(path: Path, tmp_path: Path) -> None:
    name, content = name_of(path), path.read_bytes()
    content = gzip.decompress(content) if name.endswith(".dcm.gz") else content
    reasons = matching(name)
    if reasons:
        with pytest.raises(ScanError) as caught:
            read(tmp_path, content)
        assert all(re.search(REASONS[reason], str(caught.value)) for reason in reasons)
        return
    scan = read(tmp_path, content)
    assert scan.pixels.shape == shape_of(name, content)
    blanked = path.suffix == ".gz"  # as they were patients
    assert (np.ptp(scan.pixels) == 0) == blanked


def test_the_table_is_about_files_that_are_there() -> None:
    names = [name_of(path) for path in FILES]
    assert len(names) > 190
    assert all(any(fnmatch(name, pattern) for name in names) for pattern in REASONS)
