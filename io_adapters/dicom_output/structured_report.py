"""Structured report: the scores of the scan and its worst slices, by TID 1500."""

from __future__ import annotations

from typing import TypeAlias

import highdicom as hd
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes

from io_adapters.dicom_header import MANUFACTURER
from io_adapters.dicom_output.findings import DicomOutput, Findings, Source
from io_adapters.dicom_output.series import SCORE, Series, algorithm, headers_of

Group: TypeAlias = (
    sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)
_PROCEDURES = {
    "CT": codes.LN.CTUnspecifiedBodyRegion,
    "MR": codes.LN.MRIUnspecifiedBodyRegion,
    "PT": codes.LN.PETUnspecifiedBodyRegion,
}
_ANY_PROCEDURE = codes.SCT.ImagingProcedure


def make_report(
    findings: Findings, segmentation: hd.seg.Segmentation | None
) -> sr.Comprehensive3DSR:
    """Return a report that refers to the segmentation, or where there is none to the slices."""
    series = Series(output=DicomOutput.SR, findings=findings, title="anomaly scores")
    content = sr.MeasurementReport(
        observation_context=_context(findings, series),
        procedure_reported=_PROCEDURES.get(findings.first.get("Modality"), _ANY_PROCEDURE),
        imaging_measurements=[
            _scan_group(findings, series, segmentation),
            *_slice_groups(findings, series),
        ],
    )
    evidence = headers_of(findings.sources)
    return sr.Comprehensive3DSR(
        evidence=[*evidence, segmentation] if segmentation else evidence,
        content=content,
        is_complete=True,
        coding_schemes=[
            CodingSchemeIdentificationItem(SCORE.scheme_designator, name="Terms of zsad")
        ],
        **series.arguments(),
    )


def _context(findings: Findings, series: Series) -> sr.ObservationContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=series.uid("device"),
        name="zsad",
        manufacturer_name=MANUFACTURER,
        model_name=f"zsad {findings.method}",
        serial_number=findings.model_digest[:16],
    )
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=device
    )
    return sr.ObservationContext(observer_device_context=observer)


def _scan_group(
    findings: Findings, series: Series, segmentation: hd.seg.Segmentation | None
) -> (
    sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
):
    tracking = sr.TrackingIdentifier(uid=series.uid("scan"), identifier="scan")
    measurements = [_measurement(findings, findings.score)]
    if segmentation is None:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            measurements=measurements,
            source_images=[_image(findings.sources[index]) for index in findings.worst],
        )
    segment = sr.ReferencedSegment(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=1,
        source_series=sr.SourceSeriesForSegmentation(findings.first.SeriesInstanceUID),
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking, referenced_segment=segment, measurements=measurements
    )


def _slice_groups(findings: Findings, series: Series) -> list[Group]:
    """Return the scores of the worst slices; none where those of another plane were scored."""
    groups: list[Group] = []
    scores = findings.slice_scores or [None] * len(findings.sources)
    for index in findings.worst:
        score = scores[index]
        if score is None:
            continue
        name = f"slice {index}"
        groups.append(
            sr.MeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(uid=series.uid(name), identifier=name),
                measurements=[_measurement(findings, score)],
                source_images=[_image(findings.sources[index])],
            )
        )
    return groups


def _measurement(findings: Findings, score: float) -> sr.Measurement:
    return sr.Measurement(
        name=SCORE,
        value=round(score, 6),
        unit=codes.UCUM.NoUnits,
        algorithm_id=sr.AlgorithmIdentification(
            name=algorithm(findings)[0].AlgorithmName,
            version=algorithm(findings)[0].AlgorithmVersion,
        ),
    )


def _image(source: Source) -> sr.SourceImageForMeasurementGroup:
    return sr.SourceImageForMeasurementGroup(
        referenced_sop_class_uid=source.header.SOPClassUID,
        referenced_sop_instance_uid=source.header.SOPInstanceUID,
        referenced_frame_numbers=[source.frame + 1] if "NumberOfFrames" in source.header else None,
    )
