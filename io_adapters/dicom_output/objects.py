"""The objects that were asked for, as files, and why any of them is not there.

What makes them is imported when it is needed: highdicom takes half a second, and most scans have no
DICOM results.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pydicom import Dataset

from io_adapters.dicom_output.findings import DicomOutput, Findings
from io_adapters.parsers import silence

_SEGMENTATION = "seg.dcm"


@dataclass(kw_only=True, slots=True)
class Objects:
    """The files of a scan's DICOM results."""

    files: dict[str, bytes] = field(default_factory=dict)
    """By name."""
    omitted: dict[str, str] = field(default_factory=dict)
    """By kind of object, why there is none."""


class OmittedError(Exception):
    """A kind of object that this series cannot have; the message says why."""


def make_objects(findings: Findings, wanted: Collection[DicomOutput]) -> Objects:
    """Make the DICOM results of a series.

    A kind that cannot be made is left out, with its reason: the result of the scan stays good.

    Args:
        findings: What there is to say.
        wanted: The kinds of object.
    """
    silence()  # highdicom warns of names, and quotes them
    made = Objects()
    datasets: dict[str, Dataset] = {}
    for output in (output for output in DicomOutput if output in wanted):
        try:
            datasets |= _make(output, findings, datasets)
        except OmittedError as reason:
            made.omitted[output.value] = str(reason)
        except Exception as error:  # whatever a library thinks of the source's header
            made.omitted[output.value] = (
                f"the header of the series does not allow it ({type(error).__name__})"
            )
    made.files = {name: _encode(dataset) for name, dataset in datasets.items()}
    return made


def _make(
    output: DicomOutput, findings: Findings, made: Mapping[str, Dataset]
) -> dict[str, Dataset]:
    """Return the objects of a kind by file name; a report refers to the segmentation in `made`."""
    if output is DicomOutput.SC:
        from io_adapters.dicom_output.capture import make_captures

        captures = make_captures(findings)
        return {f"sc_{rank:03}.dcm": capture for rank, capture in enumerate(captures, start=1)}
    if findings.obstacle:
        raise OmittedError(findings.obstacle)
    if output is DicomOutput.PM:
        from io_adapters.dicom_output.parametric_map import make_parametric_map

        return {"map.dcm": make_parametric_map(findings)}
    if output is DicomOutput.SR:
        from io_adapters.dicom_output.structured_report import make_report

        return {"report.dcm": make_report(findings, made.get(_SEGMENTATION))}
    from io_adapters.dicom_output.segmentation import make_segmentation

    segmentation = make_segmentation(findings)
    if segmentation is None:
        raise OmittedError("no value of the map exceeds the low mark of the heat")
    return {_SEGMENTATION: segmentation}


def _encode(dataset: Dataset) -> bytes:
    """Return the bytes of a DICOM file; nothing hides in its preamble."""
    dataset.preamble = bytes(128)
    target = io.BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()
