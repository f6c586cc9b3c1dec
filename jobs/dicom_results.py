"""The DICOM results of a scored series: its maps back on the frames they came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from io_adapters.dicom_output.findings import DicomOutput, Findings
from io_adapters.dicom_output.objects import Objects, make_objects
from io_adapters.dicom_output.source import find_obstacle, read_sources
from io_adapters.planes import regrid
from io_adapters.scan import FileRef, Kind, ScanError
from jobs.in_flight import ScanInFlight

AXES, FLIPS = (2, 1, 0), (False, True, False)
"""How frames are cut from the native grid of a series: columns, rows bottom to top, slices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DicomSettings:
    """Which objects are wanted, and what they say of the model."""

    outputs: tuple[DicomOutput, ...]
    method: str
    model_digest: str
    seed: str
    """Digest of all settings that results depend on: equal ones make equal UIDs."""


def dicom_results(
    scan: ScanInFlight,
    maps: np.ndarray,
    *,
    score: float,
    slice_scores: Sequence[float | None],
    heat: tuple[float, float],
    n_worst: int,
    settings: DicomSettings,
) -> Objects:
    """Make the DICOM objects of a scan; those of other kinds of scan have none.

    Args:
        scan: as it was scored.
        maps: anomaly maps (S, H, W), cut like its display.
        score: of the scan.
        slice_scores: of the slices of its display.
        heat: the model's.
        n_worst: how many slices to show.
        settings: of the run.
    """
    if scan.ref.kind is not Kind.DICOM or not settings.outputs:
        return Objects()
    display, geometry = scan.display, scan.geometry
    stored = dataclasses.replace(geometry, axes=AXES, flips=FLIPS) if geometry else None
    as_stored = geometry is None or (geometry.axes, geometry.flips) == (AXES, FLIPS)
    if geometry and stored and not as_stored:
        display, maps = regrid(display, geometry, stored), regrid(maps, geometry, stored)
        slice_scores = _peaks(maps)
    ranking = [-np.inf if s is None or np.isnan(s) else s for s in slice_scores]
    worst = [int(n) for n in np.argsort(ranking)[::-1][:n_worst] if np.isfinite(ranking[n])]
    thickness, *spacing = stored.spacing() if stored else (1.0, 1.0, 1.0)
    try:
        sources = read_sources(_frames(scan), thickness)
    except ScanError as error:
        return Objects(omitted={output.value: str(error) for output in settings.outputs})
    findings = Findings(
        sources=sources,
        display=display,
        maps=maps,
        heat=heat,
        score=score,
        slice_scores=slice_scores if as_stored else None,
        worst=worst,
        spacing=(spacing[0], spacing[1]),
        obstacle=find_obstacle(stored, sources),
        method=settings.method,
        model_digest=settings.model_digest,
        seed=f"{settings.seed} {scan.meta['class_name']} {scan.meta['domain']}",
    )
    return make_objects(findings, settings.outputs)


def _frames(scan: ScanInFlight) -> list[tuple[FileRef, int]]:
    files = {file.uri: file for file in scan.ref.files}
    return [(files[uri], frame - 1) for uri, frame in scan.meta["sources"]]


def _peaks(maps: np.ndarray) -> list[float]:
    """Return the highest value of each map, NaN where there is none."""
    return [float(np.nanmax(plane)) if np.isfinite(plane).any() else np.nan for plane in maps]
