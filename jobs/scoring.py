"""The scoring actor: decoded scans in, committed results out, small rows back.

It packs the slices of several scans into full device batches, because a batch of slices costs a
GPU hardly more than one, and most images are scans of a single slice.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from io_adapters.image import encode_tiff
from io_adapters.nifti import encode_nifti
from io_adapters.overlay import overlay_png
from io_adapters.results import Record, commit_scan, scan_folder
from io_adapters.scan import Failure, Kind, ScanError, ScanRef, Stage
from jobs.dicom_results import DicomSettings, dicom_results
from jobs.in_flight import ScanInFlight, View, fuse
from jobs.model import Model
from zsad.detectors import Domain, PatchScores
from zsad.scores import pool_slices

WORST_SLICES = 3
"""How many slices of a volume the overlay shows."""
RENDER_PIXELS = 1 << 24
"""Map pixels that are interpolated at once: 64 MB of float32."""


class BlankScanError(ScanError):
    """No slice of a scan shows anything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerSettings:
    """What an actor needs to build its detector and write its results."""

    checkpoint: str
    clip: str | None
    precision: str
    batch_size: int
    workers: int
    """Processes that score."""
    threads: int
    """CPU threads of the model; Ray would leave torch with one."""
    output: str
    dicom: DicomSettings


class Scorer:
    """Scores and commits batches of scans; one per device, built once per worker process."""

    def __init__(self, settings: ScorerSettings) -> None:
        self.settings = settings
        self.model = Model.load(
            settings.checkpoint,
            clip=settings.clip,
            precision=settings.precision,
            threads=settings.threads,
        )

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        """Take rows of `jobs.stages.read_row`; return one `outcome`, a JSON string, per row."""
        outcomes = [str(failure) for failure in batch["failure"]]
        scans = {
            row: ScanInFlight(ref=ScanRef.from_json(ref), meta=json.loads(meta), display=display)
            for row, (ref, meta, display) in enumerate(
                zip(batch["ref"], batch["meta"], batch["display"], strict=True)
            )
            if not outcomes[row]
        }
        try:
            self.score(list(scans.values()))
        except Exception:
            self._score_alone(scans, outcomes)
        for row, scan in scans.items():
            outcomes[row] = outcomes[row] or self._publish(scan)
        return {"outcome": outcomes}

    def score(self, scans: list[ScanInFlight]) -> None:
        """Fill in the patch maps and image scores of scans, in full batches across scans."""
        for view in (view for scan in scans for view in scan.views):
            view.clear(self.model.grid)
        for chunk in _chunks(scans, self.settings.batch_size):
            scores = self.model.score(
                [view.slices[s] for _, view, s in chunk],
                [scan.meta["class_name"] for scan, _, _ in chunk],
            )
            for (_, view, s), map_, image in zip(chunk, scores.maps, scores.image, strict=True):
                view.patch_maps[s], view.image_scores[s] = map_.numpy(), image.item()

    def _score_alone(self, scans: dict[int, ScanInFlight], outcomes: list[str]) -> None:
        """Find the scan that made a batch fail, so that its batch mates are not blamed."""
        for row, scan in scans.items():
            try:
                self.score([scan])
            except Exception as error:
                outcomes[row] = failure_json(scan.ref, Stage.SCORE, error)

    @torch.inference_mode()
    def _publish(self, scan: ScanInFlight) -> str:
        """Write a scored scan's results; return its outcome."""
        try:
            scores = [self._slice_scores(view, scan.domain) for view in scan.views]
            maps = self._render(scan)
            record = _record(scan, scores)
            folder = scan_folder(scan.ref)
            made = dicom_results(
                scan,
                maps,
                score=record["score"],
                slice_scores=record["slice_scores"],
                heat=self.model.detector.heat,
                n_worst=WORST_SLICES,
                settings=self.settings.dicom,
            )
            record |= {"dicom": sorted(made.files), "dicom_omitted": made.omitted}
            files = {
                **made.files,
                record["map"].rsplit("/", 1)[1]: _encode(scan, maps),
                "overlay.png": self._overlay(scan, maps, record),
            }
            commit_scan(self.settings.output, folder, record, files)
        except Exception as error:
            return failure_json(scan.ref, Stage.WRITE, error)
        return json.dumps({"record": record})

    def _slice_scores(self, view: View, domain: Domain) -> list[float | None]:
        """Return the scores of a view's slices, None for those that show nothing."""
        scored = ~np.isnan(view.image_scores)
        if not scored.any():
            raise BlankScanError("every slice is blank: one single value within the window")
        batch = PatchScores(
            maps=torch.from_numpy(view.patch_maps[scored]),
            image=torch.from_numpy(view.image_scores[scored]),
        )
        values = iter(self.model.detector.slice_scores(batch, domain).tolist())
        return [round(next(values), 6) if is_scored else None for is_scored in scored]

    def _render(self, scan: ScanInFlight) -> np.ndarray:
        """Return anomaly maps float32 (S, H, W), fused over the views.

        They have float16's precision: interpolation leaves noise in the low bits that a compressor
        cannot pack and a histogram of float16 bit patterns does not need.
        """
        rendered = (self._render_view(view, scan.domain) for view in scan.views)
        fused = fuse(rendered, (view.geometry for view in scan.views))
        return scan.whole(fused).astype(np.float16).astype(np.float32)

    def _render_view(self, view: View, domain: Domain) -> np.ndarray:
        """Return anomaly maps (S, H, W) of one plane, as float16: there may be three of them."""
        size = view.slices.shape[1], view.slices.shape[2]
        at_once = max(1, RENDER_PIXELS // (size[0] * size[1]))
        maps = np.empty((len(view.slices), *size), np.float16)
        for start in range(0, len(maps), at_once):
            part = torch.from_numpy(view.patch_maps[start : start + at_once])
            rendered = self.model.detector.render(part, size, domain)
            maps[start : start + at_once] = rendered.numpy().astype(np.float16)
        return maps

    def _overlay(self, scan: ScanInFlight, maps: np.ndarray, record: Record) -> bytes:
        """Draw the worst slices."""
        slice_scores = record["slice_scores"]
        worst = np.argsort([-np.inf if s is None else s for s in slice_scores])
        shown = worst[::-1][: min(WORST_SLICES, record["n_scored"])]
        return overlay_png(
            scan.display[shown],
            maps[shown],
            heat=self.model.detector.heat,
            spacing=(record["spacing_mm"] or (1.0, 1.0, 1.0))[1:],
            slice_numbers=[int(s) for s in shown] if len(slice_scores) > 1 else None,
        )


def failure_json(ref: ScanRef, stage: Stage, error: Exception) -> str:
    """Return the outcome of a scan that failed.

    Only our own messages are passed on: a library's may quote the file. Of any other error the
    place is told, which is what a bug report needs.
    """
    message = str(error)
    if not isinstance(error, ScanError):
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = f"unexpected, at {Path(place.filename).name}:{place.lineno}; please report it"
    return json.dumps(
        {
            "failure": {
                "uri": ref.uri,
                "stage": stage.value,
                "error_class": type(error).__name__,
                "message": message,
                "scan_id": ref.scan_id,
            }
        }
    )


def failure_from(fields: dict[str, Any]) -> Failure:
    """Rebuild the failure of an outcome."""
    return Failure(**fields | {"stage": Stage(fields["stage"])})


def _chunks(scans: list[ScanInFlight], size: int) -> Iterator[list[tuple[ScanInFlight, View, int]]]:
    """Yield (scan, view, slice) of all scans in lists of `size`; blank slices are left out."""
    chunk: list[tuple[ScanInFlight, View, int]] = []
    for scan in scans:
        for view in scan.views:
            for s, plane in enumerate(view.slices):
                if plane.min() == plane.max():
                    continue
                chunk.append((scan, view, s))
                if len(chunk) == size:
                    yield chunk
                    chunk = []
    if chunk:
        yield chunk


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
