"""Nothing that identifies a patient leaves the input, except in DICOM results.

Every identifying attribute of the archive holds a marker of its own; then all outputs, everything
printed, Ray's logs and all file names are searched for them.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
import tifffile
from dicom_files import make_series, write_files
from PIL import Image, PngImagePlugin
from pydicom import Dataset

from jobs.score_dataset import SOME_FAILED

ROOT = Path(__file__).parents[2]
TEXTS = (
    *("PatientName", "PatientID", "PatientAddress", "PatientComments", "OtherPatientNames"),
    *("EthnicGroup", "Occupation", "AdditionalPatientHistory", "AccessionNumber", "StudyID"),
    *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName"),
    *("DeviceSerialNumber", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName"),
    *("RequestingPhysician", "NameOfPhysiciansReadingStudy", "PhysiciansOfRecord"),
    *("StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments"),
    *("RequestedProcedureDescription", "PerformedProcedureStepDescription"),
)
"""Attributes of a kind that holds 16 characters or more."""
DATES = {
    "PatientBirthDate": "19310417",
    "StudyDate": "20031129",
    "SeriesDate": "20031130",
    "AcquisitionDate": "20031201",
    "ContentDate": "20031202",
    "StudyTime": "134759.271828",
}
UIDS = {
    "StudyInstanceUID": "1.2.840.99990001.1",
    "SeriesInstanceUID": "1.2.840.99990002.1",
    "FrameOfReferenceUID": "1.2.840.99990003.1",
}


def canary(number: int | str) -> str:
    return f"CANARY{number}X"


def mark(datasets: list[Dataset], kind: str) -> None:
    """Put a marker into every identifying attribute, private ones and a sequence included."""
    for number, dataset in enumerate(datasets):
        for n, keyword in enumerate(TEXTS):
            setattr(dataset, keyword, canary(f"{kind}{n}"))
        for keyword, value in DATES.items():
            setattr(dataset, keyword, value)
        for keyword, value in UIDS.items():
            setattr(dataset, keyword, f"{value}.{len(kind)}")
        dataset.SOPInstanceUID = f"1.2.840.99990004.{len(kind)}.{number}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        other = Dataset()
        other.PatientID = canary(f"{kind}OTHER")
        dataset.OtherPatientIDsSequence = [other]
        dataset.private_block(0x0099, canary(f"{kind}VENDOR"), create=True).add_new(
            0x10, "LO", canary(f"{kind}PRIVATE")
        )


def spoil(path: Path, markers: dict[str, bytes]) -> None:
    """Write values into a file that its attributes must not hold: parsers quote such values."""
    content = path.read_bytes()
    for attribute, wrong in markers.items():
        right = DATES[attribute].encode()
        assert len(wrong) <= len(right)
        assert right in content
        content = content.replace(right, wrong.ljust(len(right)))
    path.write_bytes(content)


def write_archive(folder: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-900, 900, (5, 24, 20)).astype(np.int16)
    regular = make_series(values)
    mark(regular, "A")
    write_files(folder / "regular", regular)
    for path in (folder / "regular").iterdir():  # dates that are none
        spoil(path, {"PatientBirthDate": b"CANARYB", "AcquisitionDate": b"CANARYC"})
    gap = make_series(values)
    mark(gap, "BB")
    write_files(folder / "gap", [*gap[:2], *gap[3:]])
    broken = make_series(values[:1])
    mark(broken, "CCC")
    write_files(folder / "broken", broken)
    path = next((folder / "broken").iterdir())
    path.write_bytes(path.read_bytes()[:-300])
    no_pixels = make_series(values[:1])
    mark(no_pixels, "DDDD")
    del no_pixels[0].PixelData, no_pixels[0].Rows
    write_files(folder / "report", no_pixels)
    write_nifti(folder / "volume.nii.gz", rng)
    dataset = {"Name": canary("DATASET"), "BIDSVersion": "1.10.0", "Authors": [canary("AUTHOR")]}
    anat = folder / "bids" / "sub-01" / "anat"
    anat.mkdir(parents=True)
    (folder / "bids" / "dataset_description.json").write_text(json.dumps(dataset))
    (anat / "sub-01_T1w.json").write_text(json.dumps({"InstitutionName": canary("SIDECAR")}))
    write_nifti(anat / "sub-01_T1w.nii.gz", rng)
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", canary("PNG"))
    picture = Image.fromarray(rng.integers(0, 255, (30, 40), dtype=np.uint8))
    picture.save(folder / "photo.png", pnginfo=text)
    exif = Image.Exif()
    exif[270] = canary("EXIF")
    picture.save(folder / "photo.jpg", exif=exif)
    tifffile.imwrite(
        folder / "photo.tiff", np.asarray(picture), description=canary("TIFF"), metadata=None
    )


def write_nifti(path: Path, rng: np.random.Generator) -> None:
    image = nib.Nifti1Image(rng.integers(0, 900, (16, 14, 9)).astype(np.int16), np.eye(4))
    image.header["descrip"] = canary("DESCRIP")
    image.header["aux_file"] = canary("AUX")
    image.header["db_name"] = canary("DB")
    image.header["intent_name"] = canary("INTENT")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", canary("EXT").encode()))
    nib.save(image, path)
    assert canary("EXT").encode() in gzip.decompress(path.read_bytes())


MARKERS = [
    "CANARY",
    *DATES.values(),
    *(uid.rsplit(".", 1)[0] for uid in UIDS.values()),
    "1.2.840.99990004",
]


def readable(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what a file says to whoever opens it, unpacked."""
    content = path.read_bytes()
    yield path.name, content
    if content[:2] == b"\x1f\x8b":
        yield f"{path.name} unpacked", gzip.decompress(content)
    if path.suffix == ".parquet":
        table = pq.read_table(io.BytesIO(content))
        yield f"{path.name} rows", json.dumps(table.to_pylist(), default=str).encode()
        yield f"{path.name} schema", str(table.schema).encode()
    if path.suffix in {".tiff", ".png"} and path.suffix == ".png":
        yield f"{path.name} texts", json.dumps(Image.open(path).info, default=str).encode()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            yield from ((name, packed.read(name)) for name in packed.namelist())


def found_in(name: str, content: bytes) -> list[str]:
    return [f"{marker} in {name}" for marker in MARKERS if marker.encode() in content]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> dict[str, Any]:
    """Score the archive in a process of its own, with a Ray of its own."""
    folder = tmp_path_factory.mktemp("p")
    write_archive(folder / "archive")
    logs = Path(os.environ.get("TMPDIR", "/tmp")) / f"zp{os.getpid()}"
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    process = subprocess.run(
        [
            *(sys.executable, "jobs/score_dataset.py", "--input", str(folder / "archive")),
            *("--output", str(folder / "out"), "--checkpoint", str(tiny_checkpoint)),
            *("--dicom-output", "seg,sc,pm,sr", "--bids-output", str(folder / "out" / "bids")),
        ],
        cwd=ROOT,
        env=environment | {"RAY_TMPDIR": str(logs), "PYTHONWARNINGS": "default"},
        capture_output=True,
        check=False,
        timeout=280,
    )
    return {"process": process, "out": folder / "out", "logs": logs, "in": folder / "archive"}


def test_the_archive_was_scored(run: dict[str, Any]) -> None:
    """Else there would be nothing to leak."""
    assert run["process"].returncode == SOME_FAILED, run["process"].stderr[-2000:]
    rows = pq.read_table(run["out"] / "scores.parquet").to_pylist()
    assert {row["kind"] for row in rows} == {"dicom", "nifti", "image"}
    failures = (run["out"] / "failures.csv").read_text()
    assert "broken" in failures
    assert "report" in failures


def test_nothing_printed_tells_who_it_was(run: dict[str, Any]) -> None:
    process = run["process"]
    assert not found_in("stdout", process.stdout) + found_in("stderr", process.stderr)


def test_no_output_tells_who_it_was(run: dict[str, Any]) -> None:
    files = [path for path in run["out"].rglob("*") if path.is_file()]
    assert len(files) > 15
    leaks = [
        leak
        for path in files
        if path.suffix != ".dcm"  # they go back to where the patient is known
        for name, content in readable(path)
        for leak in found_in(name, content)
    ]
    leaks += [f"name {path}" for path in files if found_in("", str(path.name).encode())]
    assert not leaks


def test_no_log_of_ray_tells_who_it_was(run: dict[str, Any]) -> None:
    logs = [path for path in run["logs"].rglob("*") if path.is_file()]
    assert logs
    assert not [leak for path in logs for leak in found_in(path.name, path.read_bytes())]


def test_dicom_results_keep_who_it_was(run: dict[str, Any]) -> None:
    results = list(run["out"].rglob("*.dcm"))
    assert results
    for path in results:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        assert str(dataset.PatientName).startswith("CANARY")
        assert str(dataset.PatientID).startswith("CANARY")
