"""DICOM results: what they hold, whom they belong to, and what they leave out."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from findings_case import COMPLETE, HEAT, findings_of, maps_of, series
from pydicom import Dataset
from pydicom.uid import generate_uid

from io_adapters.dicom_output import segmentation
from io_adapters.dicom_output.findings import DicomOutput, Findings, Source
from io_adapters.dicom_output.objects import Objects, make_objects
from io_adapters.dicom_output.source import clean_header

ALL = frozenset(DicomOutput)
CREATION = {
    "InstanceCreationDate",
    "InstanceCreationTime",
    "ContentDate",
    "ContentTime",
    "ContributionDateTime",
    "DateOfSecondaryCapture",
    "TimeOfSecondaryCapture",
}


def parsed(made: Objects, name: str) -> Dataset:
    return pydicom.dcmread(io.BytesIO(made.files[name]))


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return findings_of(tmp_path_factory.mktemp("series"), series())


@pytest.fixture(scope="module")
def made(findings: Findings) -> Objects:
    return make_objects(findings, ALL)


def test_every_kind_is_a_file_and_nothing_is_left_out(made: Objects) -> None:
    captures = ["sc_001.dcm", "sc_002.dcm", "sc_003.dcm"]
    assert sorted(made.files) == ["map.dcm", "report.dcm", *captures, "seg.dcm"]
    assert made.omitted == {}


@pytest.mark.parametrize("wanted", ["seg", "sc", "pm", "sr"])
def test_only_what_is_asked_for_is_made(findings: Findings, wanted: str) -> None:
    names = {"seg": {"seg.dcm"}, "pm": {"map.dcm"}, "sr": {"report.dcm"}}
    captures = {"sc_001.dcm", "sc_002.dcm", "sc_003.dcm"}
    assert set(make_objects(findings, {DicomOutput(wanted)}).files) == names.get(wanted, captures)


def test_results_are_new_series_in_the_study_of_the_patient(made: Objects) -> None:
    source = series()[0]
    found = [parsed(made, name) for name in made.files]
    kept = (*COMPLETE, "StudyInstanceUID", "StudyDate")
    for dataset in found:
        absent = {"Manufacturer", "BodyPartExamined", "FrameOfReferenceUID"}
        for keyword in set(kept) - absent - {"PositionReferenceIndicator"}:
            assert dataset[keyword].value == source[keyword].value, keyword
        assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
        assert dataset.SeriesDescription.startswith("RESEARCH - not for diagnosis")
        assert dataset.preamble == bytes(128)
    assert len({dataset.SOPInstanceUID for dataset in found}) == len(found)
    assert len({dataset.SeriesInstanceUID for dataset in found}) == 4
    assert parsed(made, "map.dcm").ContentQualification == "RESEARCH"
    assert parsed(made, "map.dcm").FrameOfReferenceUID == COMPLETE["FrameOfReferenceUID"]


def test_segmentation_is_what_exceeds_the_low_mark(made: Objects) -> None:
    segmentation = hd.seg.Segmentation.from_dataset(parsed(made, "seg.dcm"))
    uids = [dataset.SOPInstanceUID for dataset in series()]
    stored = segmentation.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(stored[..., 0], np.nan_to_num(maps_of()) > HEAT[0])


def test_parametric_map_holds_the_map_in_ascending_order(made: Objects) -> None:
    dataset = parsed(made, "map.dcm")
    stored = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(maps_of().shape)
    np.testing.assert_array_equal(stored, np.nan_to_num(maps_of(), nan=0.125))
    places = [
        group.PlanePositionSequence[0].ImagePositionPatient
        for group in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert places == [source.ImagePositionPatient for source in series()]
    volume = hd.pm.ParametricMap.from_dataset(dataset).get_volume()
    ours = np.nan_to_num(maps_of(), nan=0.125)
    descends = volume.affine[2, 0] < 0
    np.testing.assert_array_equal(volume.array, ours[::-1] if descends else ours)


def test_captures_show_the_worst_slices_and_name_their_source(findings: Findings) -> None:
    maps = np.full_like(findings.maps, 0.1)
    maps[5] = 0.9
    changed = _replace(findings, maps=maps, worst=[5, 0])
    made = make_objects(changed, {DicomOutput.SC})
    hot, cold = (parsed(made, name) for name in ("sc_001.dcm", "sc_002.dcm"))
    assert [c.SourceImageSequence[0].ReferencedSOPInstanceUID for c in (hot, cold)] == [
        series()[n].SOPInstanceUID for n in (5, 0)
    ]
    grey = cold.pixel_array[:60]
    assert (grey == 90).all()
    assert (hot.pixel_array[:60] != 90).any()
    assert hot.PatientOrientation == ["L", "P"]
    assert hot.pixel_array.shape == cold.pixel_array.shape
    assert hot.pixel_array[-10:].std() > 0  # the notice


def test_report_holds_scores_and_refers_to_the_segmentation(made: Objects) -> None:
    report = hd.sr.Comprehensive3DSR.from_dataset(parsed(made, "report.dcm"))
    segmentation = parsed(made, "seg.dcm").SOPInstanceUID
    (scan,) = report.content.get_volumetric_roi_measurement_groups(
        referenced_sop_instance_uid=segmentation
    )
    assert scan.get_measurements()[0].value == 0.8125
    slices = report.content.get_image_measurement_groups()
    assert [group.get_measurements()[0].value for group in slices] == [0.9, 0.89, 0.88]
    uids = [group.source_images[0].referenced_sop_instance_uid for group in slices]
    assert uids == [source.SOPInstanceUID for source in series()[:3]]


def test_a_report_without_segmentation_refers_to_the_slices(findings: Findings) -> None:
    made = make_objects(findings, {DicomOutput.SR})
    report = hd.sr.Comprehensive3DSR.from_dataset(parsed(made, "report.dcm"))
    assert report.content.get_volumetric_roi_measurement_groups() == []
    scan, *_ = report.content.get_image_measurement_groups()
    assert scan.get_measurements()[0].value == 0.8125


def test_slices_of_another_plane_have_no_scores_in_the_report(findings: Findings) -> None:
    made = make_objects(_replace(findings, slice_scores=None), ALL)
    report = hd.sr.Comprehensive3DSR.from_dataset(parsed(made, "report.dcm"))
    assert report.content.get_image_measurement_groups() == []


def test_the_same_result_makes_the_same_objects(findings: Findings, made: Objects) -> None:
    again = make_objects(findings, ALL)
    for name in made.files:
        first, second = parsed(made, name), parsed(again, name)
        assert _without_times(first) == _without_times(second)
    assert again.files.keys() == made.files.keys()


@pytest.mark.parametrize("changed", ["seed", "slices"])
def test_another_result_makes_other_objects(
    findings: Findings, made: Objects, tmp_path: Path, changed: str
) -> None:
    one_more = findings_of(tmp_path, series(len(findings.sources) + 1))
    other = make_objects(_replace(findings, seed="b") if changed == "seed" else one_more, ALL)
    for name in made.files:
        assert parsed(made, name).SOPInstanceUID != parsed(other, name).SOPInstanceUID
        assert parsed(made, name).SeriesInstanceUID != parsed(other, name).SeriesInstanceUID


def test_what_is_no_regular_volume_gets_pictures_only(findings: Findings) -> None:
    made = make_objects(_replace(findings, obstacle="it is a single slice"), ALL)
    assert set(made.files) == {"sc_001.dcm", "sc_002.dcm", "sc_003.dcm"}
    assert made.omitted == dict.fromkeys(("seg", "pm", "sr"), "it is a single slice")


def test_a_map_without_heat_has_no_segmentation(findings: Findings) -> None:
    made = make_objects(_replace(findings, maps=np.zeros_like(findings.maps)), ALL)
    assert list(made.omitted) == ["seg"]
    assert "report.dcm" in made.files


def test_what_a_library_refuses_is_left_out_without_its_words(
    findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Findings) -> Dataset:
        raise ValueError("Doe^Jane is not a shape")

    monkeypatch.setattr(segmentation, "make_segmentation", refuse)
    made = make_objects(findings, ALL)
    assert made.omitted == {"seg": "the header of the series does not allow it (ValueError)"}
    assert "sc_001.dcm" in made.files


def test_names_are_neither_warned_of_nor_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    fields = {"PatientName": "CANARY", "ReferringPhysicianName": "CANARY", "StudyTime": "CANARY"}
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG, "root"):
        made = make_objects(findings_of(tmp_path, series(**fields)), ALL)
    assert made.omitted == {}
    printed = capfd.readouterr()
    heard = [*map(str, caught), caplog.text, printed.out, printed.err]
    assert not [text for text in heard if "CANARY" in text]
    assert parsed(made, "seg.dcm").PatientName == "CANARY"


def test_names_in_any_alphabet_stay_names(tmp_path: Path) -> None:
    fields = {"PatientName": "Müller^Jürgen", "SpecificCharacterSet": "ISO_IR 100"}
    made = make_objects(findings_of(tmp_path, series(**fields)), ALL)
    for name in made.files:
        assert parsed(made, name).PatientName == "Müller^Jürgen"


def test_a_bare_header_is_enough(tmp_path: Path) -> None:
    bare = dict.fromkeys([*COMPLETE, "StudyDate", "SeriesNumber", "SliceThickness", "ImageType"])
    made = make_objects(findings_of(tmp_path, series(**bare)), ALL)
    assert made.omitted == {}
    segmentation = parsed(made, "seg.dcm")
    assert (segmentation.PatientID, segmentation.PatientName) == ("", "")
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == 2.0


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientAge", "42"),
        ("PatientBirthDate", "1970.01.02"),
        ("PatientSex", "female"),
        ("StudyTime", "10:11:12"),
        ("PatientWeight", "heavy"),
        ("BodyPartExamined", "the head"),
    ],
)
def test_malformed_values_are_not_copied(tmp_path: Path, keyword: str, value: str) -> None:
    datasets = series(**{keyword: None})
    tag, vr = pydicom.datadict.tag_for_keyword(keyword), pydicom.datadict.dictionary_VR(keyword)
    for dataset in datasets:  # as a reader finds it, which nobody has checked yet
        dataset[tag] = pydicom.DataElement(tag, "LO", value, validation_mode=0)
        dataset[tag].VR = vr
    made = make_objects(findings_of(tmp_path, datasets), ALL)
    assert made.omitted == {}
    for name in made.files:
        assert not parsed(made, name).get(keyword)


def test_malformed_identity_is_copied_all_the_same(tmp_path: Path) -> None:
    long = "X" * 80
    made = make_objects(findings_of(tmp_path, series(PatientID=long)), {DicomOutput.SEG})
    assert parsed(made, "seg.dcm").PatientID == long


def test_pixels_and_private_elements_stay_behind() -> None:
    dataset = series(2)[0]
    dataset.private_block(0x0011, "maker", create=True).add_new(1, "LO", "secret")
    header = clean_header(dataset, 2.0)
    assert "PixelData" not in header
    assert not [element for element in header if element.tag.is_private]


def test_frames_of_one_file_get_their_own_values(tmp_path: Path, findings: Findings) -> None:
    enhanced = hd.legacy.LegacyConvertedEnhancedCTImage(
        series()[::-1],
        generate_uid(),
        7,
        generate_uid(),
        1,
        transfer_syntax_uid=pydicom.uid.ExplicitVRLittleEndian,
    )
    groups = enhanced.PerFrameFunctionalGroupsSequence
    heights = [group.PlanePositionSequence[0].ImagePositionPatient[2] for group in groups]
    header = clean_header(enhanced, 2.0)
    sources = [Source(header=header, frame=int(frame)) for frame in np.argsort(heights)]
    made = make_objects(_replace(findings, sources=sources), ALL)
    assert made.omitted == {}
    dataset = parsed(made, "map.dcm")
    stored = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(maps_of().shape)
    np.testing.assert_array_equal(stored, np.nan_to_num(maps_of(), nan=0.125))
    capture = parsed(made, "sc_001.dcm").SourceImageSequence[0]
    assert capture.ReferencedFrameNumber == sources[0].frame + 1


def _replace(findings: Findings, **changed: Any) -> Findings:
    fields = {name: getattr(findings, name) for name in Findings.__slots__}
    return Findings(**fields | changed)


def _without_times(dataset: Dataset) -> Dataset:
    """Remove when an object was made, wherever that is said."""

    def drop(parent: Dataset, element: pydicom.DataElement) -> None:
        if element.keyword in CREATION:
            del parent[element.tag]

    dataset.walk(drop)
    return dataset
