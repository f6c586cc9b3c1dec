"""Discovery: every file becomes part of a scan, a failure, or a number; names tell no secrets."""

from __future__ import annotations

import gzip
import io
import logging
import re
import traceback
import uuid
import warnings
from pathlib import Path

import dicom_files as files
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import ROOT, make_instance, make_series
from PIL import Image
from pydicom.uid import MediaStorageDirectoryStorage

from io_adapters import storage
from io_adapters.discover import discover
from io_adapters.naming import Naming
from io_adapters.readers import read_scan
from io_adapters.scan import Failure, Kind, Scan, ScanError, ScanRef, UnreadableError

PACKAGED = [
    Path(pydicom.__file__).parent / "data",
    Path(nib.__file__).parent / "tests" / "data",
    Path(nib.__file__).parent / "nicom" / "tests" / "data",
]
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
PIXELS = np.arange(48, dtype=np.int16).reshape(6, 8)


def find(*roots: Path | str, **rules: bool) -> tuple[list[ScanRef], list[Failure]]:
    found = list(discover([str(root) for root in roots], naming=Naming(**rules)))
    refs = [item for item in found if isinstance(item, ScanRef)]
    return refs, [item for item in found if isinstance(item, Failure)]


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def png() -> bytes:
    target = io.BytesIO()
    Image.fromarray(PIXELS.astype(np.uint8)).save(target, "PNG")
    return target.getvalue()


def nifti(*, compressed: bool) -> bytes:
    content = nib.Nifti1Image(PIXELS[None], np.eye(4)).to_bytes()
    return gzip.compress(content) if compressed else bytes(content)


def dicom(**attributes: object) -> bytes:
    return files.encode(make_instance(PIXELS, **attributes))


# What a file is


@pytest.mark.parametrize(
    ("content", "kind"),
    [(png(), Kind.IMAGE), (nifti(compressed=True), Kind.NIFTI),
     (nifti(compressed=False), Kind.NIFTI), (dicom(), Kind.DICOM), (dicom()[132:], Kind.DICOM)],
    ids=["png", "nii.gz", "nii", "dicom", "dicom without preamble"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["IM0001", "a.png", "a.nii.gz", "a.dcm", "1.2.840.5"])
def test_content_decides_the_kind_whatever_the_name(
    tmp_path: Path, content: bytes, kind: Kind, name: str
) -> None:
    put(tmp_path / name, content)
    ((ref,), failures) = find(tmp_path)
    assert ref.kind is kind and not failures
    assert sorted(read_scan(ref).pixels.shape) == [1, 6, 8]


@pytest.mark.parametrize("suffix", ["JPEG", "TIFF", "BMP", "WEBP"])
def test_every_image_format_is_recognised(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(PIXELS.astype(np.uint8)).save(tmp_path / "a", suffix)
    ((ref,), _) = find(tmp_path)
    assert ref.kind is Kind.IMAGE


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("a.png", b"hello\n", "named .png, but the content is text"),
     ("a.dcm", b"hello\n", "named .dcm, but the content is text"),
     ("a.nii.gz", gzip.compress(b"hello"), "named .nii.gz, but the content is gzip"),
     ("a.jpg", b"", "named .jpg, but the content is empty"),
     ("b", b"%PDF-1.4\n", "the content is a PDF document"),
     ("b.xyz", bytes(range(256)) * 9, "of no format that is handled")],
)  # fmt: skip
def test_what_should_be_a_scan_and_is_not_is_a_failure(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = put(tmp_path / name, content)
    refs, (failure,) = find(tmp_path)
    assert not refs and message in failure.message
    assert (failure.uri, failure.error_class) == (str(path), "UnreadableError")


def test_results_that_come_back_are_left_aside_and_counted(tmp_path: Path) -> None:
    """A listener's folder holds them again when the archive passes on whatever it gets."""
    put(tmp_path / "a", dicom())
    put(tmp_path / "b", dicom(Manufacturer="zsad", SOPInstanceUID=ROOT + "9", Modality="OT"))
    discovery = discover([str(tmp_path)])
    assert len(list(discovery)) == 1 and discovery.ignored == {"results of zsad": 1}


def test_what_never_was_a_scan_is_counted_by_suffix(tmp_path: Path) -> None:
    for name in ("a.txt", "b.json", "c.JSON", "README", "Thumbs.db", "d.bval", "e.zip", "f.tar.gz"):
        put(tmp_path / name, b"hello")
    discovery = discover([str(tmp_path)])
    assert list(discovery) == []
    expected = {".txt": 1, ".json": 2, "readme": 1, ".db": 1, ".bval": 1, ".zip": 1, ".gz": 1}
    assert discovery.ignored == expected
    assert list(discovery) == [] and discovery.ignored == expected


def test_a_dicomdir_is_ignored_under_any_name(tmp_path: Path) -> None:
    directory = make_instance(PIXELS, SOPClassUID=MediaStorageDirectoryStorage)
    for name in ("DICOMDIR", "DIRFILE"):
        put(tmp_path / name, files.encode(directory))
    discovery = discover([str(tmp_path)])
    assert list(discovery) == [] and discovery.ignored == {"DICOMDIR": 2}


def test_a_dicom_object_without_pixels_is_named_by_its_class(tmp_path: Path) -> None:
    report = make_instance(PIXELS, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(report, keyword)
    put(tmp_path / "a", files.encode(report))
    _, (failure,) = find(tmp_path)
    assert failure.message == "Basic Text SR Storage has no pixels"
    assert failure.error_class == "UnsupportedError"


@pytest.mark.parametrize("kept", [140, 200, 400])
def test_a_dicom_header_cut_short_is_a_failure(tmp_path: Path, kept: int) -> None:
    put(tmp_path / "a.dcm", dicom()[:kept])
    refs, (failure,) = find(tmp_path)
    assert (not refs and "DICOM" in failure.message) or "pixels" in failure.message


@pytest.mark.filterwarnings("ignore")
def test_a_header_longer_than_the_first_read_is_read_on(tmp_path: Path) -> None:
    put(tmp_path / "a.dcm", dicom(ImageComments=None, DerivationDescription="x" * 100_000))
    put(tmp_path / "b.dcm", dicom(SeriesInstanceUID=ROOT + "7", ReferencedImageSequence=[
        make_instance(PIXELS, DerivationDescription="y" * 50_000)]))  # fmt: skip
    refs, failures = find(tmp_path)
    assert len(refs) == 2 and not failures


# Series


def test_a_series_spread_over_folders_is_one_scan_at_the_end(tmp_path: Path) -> None:
    series = make_series(np.stack([PIXELS] * 4))
    for n, instance in enumerate(series):
        put(tmp_path / f"{n % 2}" / f"{n}.dcm", files.encode(instance))
    put(tmp_path / "z.png", png())
    refs, failures = find(tmp_path)
    assert [ref.kind for ref in refs] == [Kind.IMAGE, Kind.DICOM] and not failures
    assert len(refs[1].files) == 4 and read_scan(refs[1]).pixels.shape == (4, 6, 8)


def test_series_of_a_study_share_the_study(tmp_path: Path) -> None:
    for n in range(2):
        put(tmp_path / f"{n}.dcm", dicom(SeriesInstanceUID=f"{ROOT}2.{n}"))
    (one, other), _ = find(tmp_path)
    assert one.study_id == other.study_id and one.scan_id != other.scan_id


def test_radiographs_of_a_series_are_scans_of_their_own(tmp_path: Path) -> None:
    for n in range(2):
        put(tmp_path / f"{n}.dcm", dicom(SOPInstanceUID=f"{ROOT}3.{n}", Modality="DX"))
    (one, other), _ = find(tmp_path)
    assert one.study_id == other.study_id and one.scan_id != other.scan_id


def test_a_file_without_series_is_its_own(tmp_path: Path) -> None:
    for n in range(2):
        put(tmp_path / f"{n}.dcm", dicom(SeriesInstanceUID=None))
    refs, _ = find(tmp_path)
    assert len({ref.scan_id for ref in refs}) == 2


def test_overlapping_inputs_count_a_file_once(tmp_path: Path) -> None:
    path = put(tmp_path / "a" / "a.png", png())
    refs, _ = find(tmp_path, tmp_path / "a", path)
    assert len(refs) == 1


def test_a_missing_input_is_an_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find(tmp_path / "nothing")


def test_an_object_store_is_an_archive_like_a_folder() -> None:
    root = f"memory:///{uuid.uuid4().hex}"
    storage.put_bytes(f"{root}/x/a.png", png())
    storage.put_bytes(f"{root}/x/b.dcm", dicom())
    (image, series), _ = find(root)
    assert image.label == "x/a.png" and read_scan(image).pixels.shape == (1, 6, 8)
    assert read_scan(series).pixels.shape == (1, 6, 8)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("a.png", dicom(), "named .png, but the content is DICOM; rename it"),
     ("a.nii.gz", png(), "named .nii.gz, but the content is an image; rename it"),
     ("a.tif", b"hello", "named .tif, but the content is text"),
     ("a.mgh", b"", "named .mgh, but the content is empty")],
)  # fmt: skip
def test_a_wrong_name_in_an_object_store_is_found_out_when_the_scan_is_read(
    name: str, content: bytes, message: str
) -> None:
    root = f"memory:///{uuid.uuid4().hex}"
    storage.put_bytes(f"{root}/{name}", content)
    ((ref,), failures) = find(root)
    assert not failures
    with pytest.raises(UnreadableError, match=f"^{re.escape(message)}$"):
        read_scan(ref)


def test_a_name_that_is_no_utf_8_is_a_name(tmp_path: Path) -> None:
    put(tmp_path / "a\udcff" / "b\udcff.png", png())
    put(tmp_path / "a\udcff" / "c\udcff", dicom())
    for inputs in ([tmp_path], [tmp_path, tmp_path / "a\udcff"]):
        (image, series), _ = find(*inputs, keep_ids=True)
        assert (image.label, series.label) == ("a?/b?.png", "a?")
        assert read_scan(image).pixels.shape == read_scan(series).pixels.shape


# Names


def test_ids_are_safe_unique_and_stable(tmp_path: Path) -> None:
    for name in ("a/ö ä.png", "b/ö ä.png", "-x-.png", "a" * 90 + ".png", "%%.png"):
        put(tmp_path / name, png())
    for n, instance in enumerate(make_series(np.stack([PIXELS] * 2))):
        put(tmp_path / "ct" / f"{n}.dcm", files.encode(instance))
    for keep_ids in (False, True):
        refs, _ = find(tmp_path, keep_ids=keep_ids)
        ids = [ref.scan_id for ref in refs]
        assert len(set(ids)) == 6 and all(len(name) <= 80 for name in ids)
        assert all(SAFE.fullmatch(ref.scan_id) and SAFE.fullmatch(ref.study_id) for ref in refs)
        assert refs == find(tmp_path, keep_ids=keep_ids)[0]


def test_images_are_labelled_by_path_unless_they_are_medical(tmp_path: Path) -> None:
    put(tmp_path / "doe" / "a.png", png())
    ((plain,), _), ((medical,), _) = find(tmp_path), find(tmp_path, medical_images=True)
    assert plain.label == "doe/a.png" and plain.scan_id.startswith("doe-a.png-")
    assert re.fullmatch(r"image-[0-9a-f]{16}", medical.scan_id)
    assert medical.label == medical.scan_id == medical.study_id


def test_a_single_file_is_called_by_its_name(tmp_path: Path) -> None:
    ((ref,), _) = find(put(tmp_path / "doe" / "a.png", png()))
    assert ref.label == "a.png"


def test_the_key_changes_the_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a.dcm", dicom())
    ((before,), _) = find(tmp_path)
    monkeypatch.setenv("ZSAD_ID_KEY", "secret")
    ((after,), _) = find(tmp_path)
    assert before.scan_id != after.scan_id and before.study_id != after.study_id


@pytest.mark.parametrize("keep_ids", [False, True])
def test_scans_of_a_bids_session_share_the_study(tmp_path: Path, keep_ids: bool) -> None:
    for name in ("sub-1/ses-a/anat/1.nii", "sub-1/ses-a/func/2.nii", "sub-1/ses-b/3.nii", "4.nii"):
        put(tmp_path / name, nifti(compressed=False))
    refs, _ = find(tmp_path, keep_ids=keep_ids)
    study = {Path(ref.uri).stem: ref.study_id for ref in refs}
    assert study["1"] == study["2"] and len(set(study.values())) == 3
    alone = next(ref for ref in refs if ref.uri.endswith("4.nii"))
    assert alone.study_id == alone.scan_id


def test_kept_names_tell_two_series_of_a_folder_apart(tmp_path: Path) -> None:
    for n in range(2):
        uid = f"{ROOT}2.{n}"
        put(tmp_path / "doe" / f"{n}.dcm", dicom(SeriesInstanceUID=uid, SeriesNumber=n + 4))
    put(tmp_path / "roe" / "1.dcm", dicom(SeriesInstanceUID=ROOT + "5"))
    for n in range(2):
        put(tmp_path / "x" / f"{n}.dcm", dicom(SOPInstanceUID=f"{ROOT}3.{n}", Modality="DX"))
    refs, _ = find(tmp_path, keep_ids=True)
    labels = [ref.label for ref in refs]
    assert labels == ["doe CT 4", "doe CT 5", "roe", "x/0.dcm", "x/1.dcm"]


def test_folders_name_classes_only_when_asked(tmp_path: Path) -> None:
    put(tmp_path / "metal_nut" / "a.png", png())
    put(tmp_path / "brain-mri" / "a.dcm", dicom())
    assert [ref.class_name for ref in find(tmp_path)[0]] == [None, None]
    named, _ = find(tmp_path, class_from_folder=True)
    assert [ref.class_name for ref in named] == ["metal nut", "brain mri"]


# Everything and nothing


@pytest.mark.parametrize("root", PACKAGED, ids=["pydicom", "nibabel", "nicom"])
def test_every_packaged_file_becomes_a_scan_a_failure_or_a_number(root: Path) -> None:
    discovery = discover([str(root)])
    found = list(discovery)
    scans = [item for item in found if isinstance(item, ScanRef)]
    counted = sum(len(ref.files) for ref in scans) + sum(discovery.ignored.values())
    everything = [path for path in root.rglob("*") if path.is_file() and path.name[0] != "."]
    assert counted + len(found) - len(scans) == len(everything)
    for ref in scans:
        for file in ref.files:  # one by one, since some share their UIDs
            single = files.ref_of(ref.kind, Path(file.uri))
            try:
                assert isinstance(read_scan(single), Scan)
            except ScanError as error:
                assert str(error)


CANARY = "ZEBRA"


def poisoned() -> dict[str, bytes]:
    """Return files full of a name, whole and broken in ways that make parsers talk."""
    named = {
        "PatientName": CANARY, "PatientID": CANARY, "StudyID": CANARY, "StudyDescription": CANARY,
        "SeriesDescription": CANARY, "AccessionNumber": CANARY, "StudyInstanceUID": CANARY,
        "PatientBirthDate": CANARY, "InstitutionName": CANARY,
    }  # fmt: skip
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    whole = {"whole": dicom(**named), "unnamed class": dicom(**named, SOPClassUID=CANARY)}
    for n, keyword in enumerate(("Modality", "PhotometricInterpretation", "SpecificCharacterSet",
                                 "SOPInstanceUID", "BodyPartExamined", "ImageType")):  # fmt: skip
        uid = f"{ROOT}{n}"
        whole[keyword] = dicom(**{**named, "SeriesInstanceUID": uid, keyword: CANARY.lower()})
    pydicom.config.settings.writing_validation_mode = pydicom.config.RAISE
    number = dicom(**named, WindowCenter="12345", SeriesInstanceUID=ROOT + "99")
    whole["number"] = number.replace(b"12345", CANARY.encode())
    cut = {f"cut {name}": content[:-20] for name, content in whole.items()}
    image = nib.Nifti1Image(PIXELS[None], np.eye(4))
    image.header["descrip"] = CANARY
    volume = bytearray(image.to_bytes())
    bad = volume[:76] + CANARY.encode() * 3 + volume[91:]
    return whole | cut | {"a.nii": bytes(volume), "b.nii": bytes(bad), "c.nii": bytes(volume[:-9])}


@pytest.mark.filterwarnings("ignore")
def test_a_name_in_the_files_comes_out_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folders = [
        put(tmp_path / f"{CANARY}^JOHN" / name / CANARY, content).parent
        for name, content in poisoned().items()
    ]
    caplog.set_level(logging.INFO)
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [find(folder) for folder in folders]
        refs = [ref for refs, _ in found for ref in refs]
        failures = [failure for _, failures in found for failure in failures]
        said += [failure.message for failure in failures]
        for ref in refs:
            said += [ref.scan_id, ref.study_id, ref.label, str(ref.class_name)]
            try:
                scan = read_scan(ref)
                said += [str(scan.modality), *scan.flags]
            except ScanError as error:
                said += traceback.format_exception(error)
    said += [str(warning.message) for warning in caught] + [caplog.text, *capfd.readouterr()]
    assert len(refs) + len(failures) == len(folders)
    assert not [text for text in said if CANARY.lower() in text.lower()]
