"""What all objects of a result have in common: identity, equipment, and the words they carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import highdicom as hd
from pydicom import Dataset
from pydicom.sr.codedict import codes

from io_adapters.dicom_header import MANUFACTURER
from io_adapters.dicom_output.findings import DicomOutput, Findings, Source
from io_adapters.dicom_output.uids import derived_uid

NOTICE = "RESEARCH - not for diagnosis"
SCORE = hd.sr.CodedConcept("anomaly-score", "99ZSAD", "Anomaly score")
_MAX_SERIES_NUMBER = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """The new series, in the study of its source, that the objects of one kind make."""

    output: DicomOutput
    findings: Findings
    title: str
    """What the objects show ("anomaly segmentation")."""

    def uid(self, *parts: str) -> str:
        """Return the UID of something in the series, of the series itself without parts."""
        sources = [str(header.SOPInstanceUID) for header in headers_of(self.findings.sources)]
        return derived_uid(*sources, self.findings.seed, self.output.value, *parts)

    def arguments(self, instance: int = 1) -> dict[str, Any]:
        """Return the arguments that highdicom's classes share, of one instance from 1."""
        number = int(self.findings.first.get("SeriesNumber") or 0) % _MAX_SERIES_NUMBER
        return {
            "series_instance_uid": self.uid(),
            "series_number": 100 * max(number, 1) + 1 + list(DicomOutput).index(self.output),
            "series_description": f"{NOTICE}: {self.title}",
            "sop_instance_uid": self.uid("instance", str(instance)),
            "instance_number": instance,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": f"zsad {self.findings.method}",
            "software_versions": version("zsad"),
            "device_serial_number": self.findings.model_digest[:16],
        }

    def name_dimensions(self, dataset: Dataset) -> None:
        """Give the dimensions of a multi-frame object a derived UID; highdicom draws one."""
        uid = self.uid("dimensions")
        for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
            item.DimensionOrganizationUID = uid


def algorithm(findings: Findings) -> hd.AlgorithmIdentificationSequence:
    """Return what made the findings."""
    return hd.AlgorithmIdentificationSequence(
        name=f"zsad {findings.method}",
        version=f"{version('zsad')}, model {findings.model_digest[:16]}",
        family=codes.DCM.ArtificialIntelligence,
    )


def headers_of(sources: Sequence[Source]) -> list[Dataset]:
    """Return the header of each object once, in the order of its first slice."""
    return list({str(s.header.SOPInstanceUID): s.header for s in sources}.values())
