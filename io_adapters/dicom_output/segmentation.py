"""Segmentation: the voxels whose map value is beyond the low mark of the heat."""

from __future__ import annotations

import highdicom as hd
import numpy as np
from pydicom.sr.codedict import codes

from io_adapters.dicom_output.findings import DicomOutput, Findings
from io_adapters.dicom_output.frames import in_file_order
from io_adapters.dicom_output.series import NOTICE, Series, algorithm, headers_of


def make_segmentation(findings: Findings) -> hd.seg.Segmentation | None:
    """Return one binary segment of what exceeds the low mark, None where nothing does."""
    series = Series(output=DicomOutput.SEG, findings=findings, title="anomaly segmentation")
    mask = findings.maps > findings.heat[0]  # NaN is not beyond anything
    if not mask.any():
        return None
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Anomaly",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm(findings),
        tracking_uid=series.uid("anomaly"),
        tracking_id="anomaly",
    )
    segmentation = hd.seg.Segmentation(
        source_images=headers_of(findings.sources),
        pixel_array=in_file_order(mask, findings.sources).astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        content_label="ANOMALY",
        content_description=f"{NOTICE}: map above {findings.heat[0]:.4g}",
        **series.arguments(),
    )
    series.name_dimensions(segmentation)
    return segmentation
