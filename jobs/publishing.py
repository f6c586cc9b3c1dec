"""The publish stage: patch maps → committed results, on any CPU.

It needs the method's rule and none of its weights, so that a machine with a GPU does not spend its
time on interpolation, compression and waiting for storage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch

from io_adapters.image import encode_tiff
from io_adapters.nifti import encode_nifti
from io_adapters.overlay import overlay_png
from io_adapters.results import commit_scan, scan_folder
from io_adapters.scan import Kind, ScanError, ScanRef, Stage
from io_adapters.tables import Record
from jobs.dicom_results import DicomSettings, dicom_results
from jobs.in_flight import ScanInFlight, View, fuse
from jobs.outcomes import failure_json
from jobs.rows import Batch
from jobs.watch import Watch
from zsad.detectors import Domain, PatchScores, ScoreRule
from zsad.scores import pool_slices

WORST_SLICES = 3
"""How many slices of a volume the overlay shows."""
RENDER_PIXELS = 1 << 18
"""Map pixels that are interpolated and rounded at once: 1 MB of float32, which stays in the cache
of a core."""
AT_ONCE = 8
"""Scans of a block that are published at once: most of their time is waiting for storage."""


class BlankScanError(ScanError):
    """No slice of a scan shows anything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublisherSettings:
    """What makes results of scores, and where they go."""

    rule: ScoreRule
    output: str
    dicom: DicomSettings


def publish_block(
    batch: Batch, settings: PublisherSettings, watch: Watch
) -> Iterator[dict[str, list[str]]]:
    """Publish the scans of a block in a task of its own."""
    torch.set_num_threads(1)
    with watch.over("publish", batch) as watched:
        yield Publisher(settings)(watched)


class Publisher:
    """Renders and commits batches of scored scans."""

    def __init__(self, settings: PublisherSettings) -> None:
        self.settings, self.rule = settings, settings.rule

    def __call__(self, batch: Batch) -> dict[str, list[str]]:
        """Take rows that are scored; return one `outcome`, a JSON string, per row."""
        rows = [
            dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)
        ]
        with ThreadPoolExecutor(
            min(AT_ONCE, len(rows)), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:  # the cores are the model's
            return {"outcome": list(pool.map(self.publish, rows))}

    @torch.inference_mode()
    def publish(self, row: dict[str, Any]) -> str:
        """Write the results of a row's scan; return its outcome."""
        if row["failure"]:
            return str(row["failure"])
        ref = ScanRef.from_json(row["ref"])
        try:
            scan = ScanInFlight(ref=ref, meta=json.loads(row["meta"]), display=row["display"])
            scan.take_scores(row["patch_maps"], row["image_scores"])
            return json.dumps({"record": self._commit(scan)})
        except Exception as error:
            return failure_json(ref, Stage.WRITE, error)

    def _commit(self, scan: ScanInFlight) -> Record:
        scores = [self._slice_scores(view, scan.domain) for view in scan.views]
        maps = self._render(scan)
        record = _record(scan, scores)
        made = dicom_results(
            scan,
            maps,
            score=record["score"],
            slice_scores=record["slice_scores"],
            heat=self.rule.heat,
            n_worst=WORST_SLICES,
            settings=self.settings.dicom,
        )
        record |= {"dicom": sorted(made.files), "dicom_omitted": made.omitted}
        files = {
            **made.files,
            record["map"].rsplit("/", 1)[1]: _encode(scan, maps),
            "overlay.png": self._overlay(scan, maps, record),
        }
        commit_scan(self.settings.output, scan_folder(scan.ref), record, files)
        return record

    def _slice_scores(self, view: View, domain: Domain) -> list[float | None]:
        """Return the scores of a view's slices, None for those that show nothing."""
        scored = ~np.isnan(view.image_scores)
        if not scored.any():
            raise BlankScanError("every slice is blank: one single value within the window")
        batch = PatchScores(
            maps=torch.from_numpy(view.patch_maps[scored]),
            image=torch.from_numpy(view.image_scores[scored]),
        )
        values = iter(self.rule.slice_scores(batch, domain).tolist())
        return [round(next(values), 6) if is_scored else None for is_scored in scored]

    def _render(self, scan: ScanInFlight) -> np.ndarray:
        """Return anomaly maps float32 (S, H, W), fused over the views.

        They have float16's precision: interpolation leaves noise in the low bits that a compressor
        cannot pack and a histogram of float16 bit patterns does not need.
        """
        if len(scan.views) == 1:
            return scan.whole(self._render_view(scan.views[0], scan.domain, np.float32))
        rendered = (self._render_view(view, scan.domain, np.float16) for view in scan.views)
        fused = fuse(rendered, (view.geometry for view in scan.views))
        return scan.whole(fused).astype(np.float16).astype(np.float32)

    def _render_view(self, view: View, domain: Domain, dtype: type[np.floating]) -> np.ndarray:
        """Return anomaly maps (S, H, W) of one plane, of float16's precision in any type."""
        size = view.slices.shape[1], view.slices.shape[2]
        at_once = max(1, RENDER_PIXELS // (size[0] * size[1]))
        maps = np.empty((len(view.slices), *size), dtype)
        for start in range(0, len(maps), at_once):
            part = torch.tensor(view.patch_maps[start : start + at_once])
            rendered = self.rule.render(part, size, domain)
            maps[start : start + at_once] = rendered.half().numpy()
        return maps

    def _overlay(self, scan: ScanInFlight, maps: np.ndarray, record: Record) -> bytes:
        """Draw the worst slices."""
        slice_scores = record["slice_scores"]
        worst = np.argsort([-np.inf if s is None else s for s in slice_scores])
        shown = worst[::-1][: min(WORST_SLICES, record["n_scored"])]
        return overlay_png(
            scan.display[shown],
            maps[shown],
            heat=self.rule.heat,
            spacing=(record["spacing_mm"] or (1.0, 1.0, 1.0))[1:],
            slice_numbers=[int(s) for s in shown] if len(slice_scores) > 1 else None,
        )


def _record(scan: ScanInFlight, scores: list[list[float | None]]) -> Record:
    """Return the record of a scan, given the slice scores of each of its views."""
    slice_scores = scan.whole_scores(scores[0])
    by_plane = {
        view.plane: pooled
        for view, of_view in zip(scan.views, scores, strict=True)
        if (pooled := pool_slices(of_view)) is not None
    }
    folder = scan_folder(scan.ref)
    scored = {s: score for s, score in enumerate(slice_scores) if score is not None}
    name = "map.nii.gz" if scan.meta["geometry"] else "map.tiff"
    return {
        "study_id": scan.ref.study_id,
        "scan_id": scan.ref.scan_id,
        "label": scan.ref.label,
        "kind": scan.ref.kind.value,
        "modality": scan.meta["modality"],
        "domain": scan.meta["domain"],
        "class_name": scan.meta["class_name"],
        "uri": scan.ref.uri,
        "shape": scan.meta["shape"],
        "spacing_mm": scan.meta["spacing_mm"],
        "n_slices": len(slice_scores),
        "n_scored": len(scored),
        "score": fmean(by_plane.values()),
        "top_slice": max(scored, key=lambda s: scored[s]),
        "slice_scores": slice_scores,
        "p_value": None,
        "flagged": None,
        "flags": scan.meta["flags"],
        "map": f"{folder}/{name}",
        "overlay": f"{folder}/overlay.png",
        "fingerprint": scan.meta["fingerprint"],
        "plane": scan.meta["plane"],
        "plane_scores": by_plane,
        "window": scan.meta["window"],
        "crop": scan.meta["crop"],
    }


def _encode(scan: ScanInFlight, maps: np.ndarray) -> bytes:
    """Encode anomaly maps (S, H, W) on the scan's own grid."""
    geometry = scan.geometry
    if geometry is None:
        return encode_tiff(maps[0] if scan.ref.kind is Kind.IMAGE else maps)
    return encode_nifti(geometry.to_native(maps), geometry.affine)
