"""Parametric map: the anomaly map as float32 values, frame by frame in ascending order."""

from __future__ import annotations

import highdicom as hd
import numpy as np
from pydicom.sr.codedict import codes

from io_adapters.dicom_output.findings import DicomOutput, Findings
from io_adapters.dicom_output.frames import anatomy, in_file_order
from io_adapters.dicom_output.series import Series, headers_of


def make_parametric_map(findings: Findings) -> hd.pm.ParametricMap:
    """Return the anomaly map; what was not scored gets the lowest value of the rest."""
    series = Series(output=DicomOutput.PM, findings=findings, title="anomaly map")
    lowest, highest = float(np.nanmin(findings.maps)), float(np.nanmax(findings.maps))
    values = np.nan_to_num(findings.maps.astype(np.float32), nan=lowest)
    low, high = findings.heat
    scale = hd.pm.RealWorldValueMapping(
        lut_label="ANOMALY",
        lut_explanation="Anomaly score of the pixel, no probability",
        unit=codes.UCUM.NoUnits,
        value_range=(lowest, max(highest, np.nextafter(lowest, np.inf))),
        slope=1.0,
        intercept=0.0,
    )
    window = hd.VOILUTTransformation(
        window_center=(low + high) / 2,
        window_width=high - low,
        voi_lut_function=hd.VOILUTFunctionValues.LINEAR_EXACT,
    )
    parametric_map = hd.pm.ParametricMap(
        source_images=headers_of(findings.sources),
        pixel_array=in_file_order(values, findings.sources),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[scale],
        voi_lut_transformations=[window],
        content_label="ANOMALY",
        content_qualification=hd.ContentQualificationValues.RESEARCH,
        derivation=codes.DCM.SegmentationImageDerivation,
        **series.arguments(),
    )
    parametric_map.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [
        anatomy(findings.first)
    ]
    series.name_dimensions(parametric_map)
    _ascend(parametric_map)
    return parametric_map


def _ascend(parametric_map: hd.pm.ParametricMap) -> None:
    """Reverse the frames, which highdicom stores in descending order along their normal.

    OHIF and dcmqi, 3D Slicer's reader, ignore the position of a frame and take them to ascend.
    """
    groups = list(parametric_map.PerFrameFunctionalGroupsSequence)
    values = np.frombuffer(parametric_map.FloatPixelData, "<f4").reshape(len(groups), -1)
    parametric_map.PerFrameFunctionalGroupsSequence = groups[::-1]
    parametric_map.FloatPixelData = values[::-1].tobytes()
