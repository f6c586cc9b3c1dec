"""Secondary captures: pictures of the worst slices under their heat, for any viewer."""

from __future__ import annotations

import highdicom as hd
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset

from io_adapters.dicom_header import MANUFACTURER
from io_adapters.dicom_output.findings import DicomOutput, Findings, Source
from io_adapters.dicom_output.series import NOTICE, Series
from io_adapters.overlay import (
    BACKGROUND,
    CAPTION_COLOUR,
    add_heat,
    enlarge,
    enlarge_map,
    picture_size,
)

_MAX_SIDE = 1024
"""Pixels; a viewer shows the pictures at full size."""


def make_captures(findings: Findings) -> list[hd.sc.SCImage]:
    """Return one colour picture for each of the worst slices, worst first."""
    series = Series(output=DicomOutput.SC, findings=findings, title="worst slices")
    return [
        _capture(findings, series, index, rank)
        for rank, index in enumerate(findings.worst, start=1)
    ]


def _capture(findings: Findings, series: Series, index: int, rank: int) -> hd.sc.SCImage:
    source = findings.sources[index]
    arguments = series.arguments(rank)
    del arguments["manufacturer"]
    capture = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=source.header,
        pixel_array=_picture(findings, index),
        photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "P"),  # replaced below: the constructor does not take none
        manufacturer=MANUFACTURER,
        **arguments,
    )
    capture.copy_patient_and_study_information(source.header)
    capture.PatientOrientation = _patient_orientation(source.header)
    capture.Laterality = source.header.get("Laterality") or ""
    capture.ImageComments = f"{NOTICE}: slice {index}, number {rank} of the worst"
    capture.BurnedInAnnotation = "NO"
    capture.SourceImageSequence = [reference(source)]
    return capture


def reference(source: Source) -> Dataset:
    """Return a reference to the frame that a slice was read from."""
    item = Dataset()
    item.ReferencedSOPClassUID = source.header.SOPClassUID
    item.ReferencedSOPInstanceUID = source.header.SOPInstanceUID
    if "NumberOfFrames" in source.header:
        item.ReferencedFrameNumber = source.frame + 1
    return item


def _picture(findings: Findings, index: int) -> np.ndarray:
    """Return RGB uint8 (rows, columns, 3): the slice, its heat, and a line that says what it is."""
    plane, values = findings.display[index], findings.maps[index]
    size = picture_size(plane.shape[:2], findings.spacing, _MAX_SIDE)
    heat = enlarge_map(values, findings.heat, size)
    picture = add_heat(enlarge(plane, size), heat, findings.heat)
    text_size = max(12, size[1] // 32)
    sheet = Image.new("RGB", (size[1], size[0] + text_size * 3 // 2), BACKGROUND)
    sheet.paste(Image.fromarray(picture))
    font = ImageFont.load_default(text_size)
    ImageDraw.Draw(sheet).text((3, size[0]), NOTICE, fill=CAPTION_COLOUR, font=font)
    return np.asarray(sheet)


def _patient_orientation(header: Dataset) -> list[str] | str:
    """Return where rows and columns run to ("L", "P"), empty where it is not known."""
    orientation = header.get("ImageOrientationPatient")
    if orientation is None or len(orientation) != 6:
        return header.get("PatientOrientation") or ""
    directions = np.asarray(orientation, dtype=np.float64).reshape(2, 3)
    axes = np.abs(directions).argmax(axis=1)
    return [
        ("LR", "PA", "HF")[axis][int(direction[axis] < 0)]
        for axis, direction in zip(axes, directions, strict=True)
    ]
