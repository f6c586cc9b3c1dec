"""Which files of a series are one scan, and what its parts are called."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from dicom_files import CORONAL, encode, make_instance
from pydicom.uid import SecondaryCaptureImageStorage

from io_adapters.dicom_header import Header, Role, read_header
from io_adapters.dicom_series import name_parts, same_scan

SLICE = np.zeros((6, 8), np.int16)


def header(**attributes: object) -> Header:
    found = read_header(encode(make_instance(SLICE, **attributes)))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImagePositionPatient": [0, 0, 9], "SOPInstanceUID": "1.2.3"},
        {"ImageOrientationPatient": [0.999999, 0.001, 0, -0.001, 0.999999, 0]},
        {"PixelSpacing": [0.5001, 0.4999]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "M"]},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_slices_of_a_volume_may_differ_by_place_rounding_and_kind(attributes: dict) -> None:
    assert same_scan(header(), header(**attributes))


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImageOrientationPatient": list(CORONAL)},
        {"ImageOrientationPatient": None},
        {"PixelSpacing": [0.5, 0.6]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"ImageType": "DERIVED"},
        {"SOPClassUID": SecondaryCaptureImageStorage},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"Rows": 12},
        {"NumberOfFrames": 2},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_what_cannot_be_stacked_is_another_scan(attributes: dict) -> None:
    assert not same_scan(header(), header(**attributes))


def test_files_of_one_radiograph_are_one_scan_whatever_they_say() -> None:
    assert same_scan(header(Modality="DX"), header(Modality="DX", Rows=12))


def test_the_volume_keeps_the_name_of_the_series_when_a_scout_joins_it() -> None:
    scout = dataclasses.replace(header(), role=Role.LOCALIZER)
    alone, together = name_parts([header()]), name_parts([scout, header()])
    assert alone[0] == together[1] and alone[0].identity == ()
    assert together[0].identity == together[0].words == ("localizer",)


def test_parts_of_one_role_are_told_apart_by_what_they_are() -> None:
    one, other = header(), header(ImageOrientationPatient=list(CORONAL))
    forwards, backwards = name_parts([one, other]), name_parts([other, one])
    assert {part.identity for part in forwards} == {part.identity for part in backwards}
    assert [part.words for part in forwards] == [("part 1",), ("part 2",)]


def test_parts_that_look_alike_are_numbered() -> None:
    nearly = dataclasses.replace(header(), grid=((1.0, 0.02, 0.0, 0.0, 1.0, 0.0), (0.5, 0.5)))
    assert len({part.identity for part in name_parts([header(), nearly, nearly])}) == 3
