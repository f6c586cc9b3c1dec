"""The order of slices in a file, and what is said of every frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes

from io_adapters.dicom_output.findings import Source


def in_file_order(slices: np.ndarray, sources: Sequence[Source]) -> np.ndarray:
    """Return slices (S, H, W) in the order of the frames of a multi-frame source.

    The slices of single-frame sources stay as they are: there, the sources are in their order.
    """
    return slices[np.argsort([source.frame for source in sources], kind="stable")]


def anatomy(header: Dataset) -> Dataset:
    """Return an item of the frame anatomy sequence: what the source says it shows."""
    item = Dataset()
    region = header.get("AnatomicRegionSequence")
    item.AnatomicRegionSequence = region or [_region(str(header.get("BodyPartExamined") or ""))]
    item.FrameLaterality = "U"
    return item


def _region(body_part: str) -> Dataset:
    """Return the code of a body part by its name ("HEAD"), of the entire body for any other."""
    names = {name.upper(): name for name in codes.cid4030.dir()}
    code = getattr(codes.cid4030, names.get(body_part.upper(), "EntireBody"))
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code.value, code.scheme_designator
    item.CodeMeaning = code.meaning
    return item
