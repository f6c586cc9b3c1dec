"""What real archives hold ends as the true volume, as a flagged one, or as a failure that says why.

The truths of the table are worked out by hand; where another reader is right, it has to agree.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import dcm2niix
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_archives import Case, Truth, copy_series
from dicom_cases import CASES

from io_adapters.discover import discover
from io_adapters.readers import read_scan
from io_adapters.scan import Scan, ScanError, ScanRef

each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def read_archive(case: Case, folder: Path) -> tuple[list[tuple[ScanRef, Scan]], list[str], dict]:
    """Return the scans of a case's archive, the messages of its failures, and what was ignored."""
    case.write(folder)
    discovery = discover([str(folder)])
    scans, failures = [], []
    for found in discovery:
        if not isinstance(found, ScanRef):
            failures.append(found.message)
            continue
        try:
            scans.append((found, read_scan(found)))
        except ScanError as error:
            failures.append(str(error))
    return scans, failures, dict(discovery.ignored)


def assert_is(scan: Scan, truth: Truth) -> None:
    np.testing.assert_allclose(scan.pixels, truth.pixels, rtol=1e-6)
    assert scan.flags == truth.flags and scan.invert == truth.invert
    if truth.affine is None:
        assert scan.geometry is None
    else:
        assert scan.geometry is not None
        np.testing.assert_allclose(scan.geometry.affine, truth.affine, atol=1e-4)
    if truth.window is not None:
        np.testing.assert_allclose(scan.window, truth.window)


@each_case
def test_an_archive_becomes_what_it_is(case: Case, tmp_path: Path) -> None:
    scans, failures, ignored = read_archive(case, tmp_path / "archive")
    assert len(scans) == len(case.scans) and len(failures) == len(case.failures)
    for (_, scan), truth in zip(scans, case.scans, strict=True):
        assert_is(scan, truth)
    for message, pattern in zip(failures, case.failures, strict=True):
        assert re.search(pattern, message)
    assert ignored == case.ignored
    assert len({ref.scan_id for ref, _ in scans}) == len(scans)
    assert len({ref.study_id for ref, _ in scans}) <= 1


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.oracle],
    ids=[f"{case.name} {case.oracle}" for case in CASES if case.oracle],
)
def test_who_reads_a_series_rightly_agrees(case: Case, tmp_path: Path) -> None:
    (((ref, scan),), _, _) = read_archive(case, tmp_path / "archive")
    copy_series([Path(file.uri) for file in ref.files], tmp_path / "series")
    read = dcm2niix_volume if case.oracle == "dcm2niix" else simpleitk_volume
    voxels, affine = read(tmp_path / "series")
    assert scan.geometry is not None
    native = scan.geometry.to_native(scan.pixels)
    if native.ndim < voxels.ndim:
        voxels = voxels.squeeze()
    np.testing.assert_allclose(scan.geometry.affine, affine, atol=1e-3)
    np.testing.assert_allclose(native, voxels, rtol=1e-5)


def dcm2niix_volume(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    out = folder.with_name("out")
    out.mkdir()
    options = ["-x", "i", "-b", "n", "-z", "n", "-f", "x"]
    command = [dcm2niix.bin, *options, "-o", str(out), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = out.glob("*.nii")
    image = nib.load(path)
    return np.asarray(image.dataobj), image.affine


def simpleitk_volume(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return columns, rows bottom to top and slices, as dcm2niix makes them, of what ITK reads."""
    image = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    voxels = SimpleITK.GetArrayFromImage(image).T[:, ::-1]
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps[:3, 3] = image.TransformIndexToPhysicalPoint((0, image.GetHeight() - 1, 0))
    lps[:3, 1] *= -1
    return voxels, np.diag([-1, -1, 1, 1]) @ lps


# Whatever the truths above say: a volume with a geometry lies where the headers of its files put it


@each_case
def test_no_case_is_a_wrong_volume_without_a_flag(case: Case, tmp_path: Path) -> None:
    scans, _, _ = read_archive(case, tmp_path)
    for _, scan in scans:
        if scan.geometry is None:
            assert len(scan.pixels) == 1 or scan.flags
        elif not any(flag.startswith("mosaic") for flag in scan.flags):
            assert_lies_where_headers_say(scan)


def assert_lies_where_headers_say(scan: Scan) -> None:
    assert scan.geometry is not None and len(scan.sources) == len(scan.pixels)
    columns, rows, depth = scan.geometry.shape
    for n, source in enumerate(scan.sources):
        dataset = pydicom.dcmread(source.file.uri, force=True)
        position, orientation, spacing = frame_plane(dataset, source.frame - 1)
        for row, column in ((0, 0), (0, columns - 1), (rows - 1, 0)):
            down, right = orientation[3:] * spacing[0] * row, orientation[:3] * spacing[1] * column
            expected = (position + down + right) * (-1, -1, 1)
            found = scan.geometry.affine @ (column, rows - 1 - row, n % depth, 1)
            np.testing.assert_allclose(found[:3], expected, atol=1e-2)


def frame_plane(dataset: pydicom.Dataset, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return position, orientation and pixel spacing of a frame, straight from the header."""
    levels = [dataset]
    if "PerFrameFunctionalGroupsSequence" in dataset:
        own = dataset.PerFrameFunctionalGroupsSequence[frame]
        levels = [*dataset.SharedFunctionalGroupsSequence, own]
        levels = [item for level in levels for element in level for item in element.value]
    wanted = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    found = {
        key: np.array(level[key].value, float) for level in levels for key in wanted if key in level
    }
    return tuple(found[key] for key in wanted)
