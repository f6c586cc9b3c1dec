"""How well the detector does on the held-out images: what the epoch is chosen by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from io_adapters.datasets import LabelledImage
from jobs.training.batches import HeldOutBatch
from zsad.calibration import Calibration, calibrate, chunks_of_domains
from zsad.detectors import ClassText, Domain, PatchScores
from zsad.metrics import PixelCounts, rank_images


@dataclass(slots=True)
class HeldOutScores:
    """What a detector says of held-out images, on its way to being counted."""

    items: list[LabelledImage] = field(default_factory=list)
    maps: list[Tensor] = field(default_factory=list)
    """Patch maps (h, w), on the CPU."""
    image: list[Tensor] = field(default_factory=list)
    """Image scores, ()."""
    pixels: dict[str, PixelCounts] = field(default_factory=dict)
    """By class."""

    def add(self, detector: Any, batch: HeldOutBatch, scores: PatchScores) -> None:
        """Count a batch."""
        self.items += batch.items
        self.maps += scores.maps.cpu().unbind()
        self.image += scores.image.cpu().unbind()
        size = batch.masks.shape[1:]
        for rows, domain in chunks_of_domains([Domain(item.domain) for item in batch.items]):
            rendered = detector.render(scores.maps[rows], size, domain).cpu().numpy()
            for item, map_, mask in zip(
                batch.items[rows], rendered, batch.masks[rows].numpy(), strict=True
            ):
                self.pixels.setdefault(item.class_name, PixelCounts()).add(map_, mask)

    def merge(self, other: HeldOutScores) -> None:
        """Add what another worker counted."""
        self.items += other.items
        self.maps += other.maps
        self.image += other.image
        for name, counts in other.pixels.items():
            self.pixels.setdefault(name, PixelCounts()).merge(counts)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutResult:
    """The numbers of an epoch."""

    pixel_auroc: float
    """Mean over the classes that have both labels."""
    image_auroc: float
    """The same; over all images together where no class has both."""
    calibration: Calibration

    @property
    def quality(self) -> float:
        """What epochs are compared by."""
        return (self.pixel_auroc + self.image_auroc) / 2

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "pixel_auroc": self.pixel_auroc,
            "image_auroc": self.image_auroc,
            "quality": self.quality,
            "calibration": self.calibration.to_dict(),
        }


@torch.inference_mode()
def score_held_out(
    detector: Any, batches: Iterable[HeldOutBatch], *, device: torch.device, bf16: bool
) -> HeldOutScores:
    """Score batches with the detector's own rule.

    Raises:
        ValueError: a map holds NaN.
    """
    found = HeldOutScores()
    texts: dict[str, ClassText] = {}
    for batch in batches:
        names = [item.class_name for item in batch.items]
        if new := sorted(set(names) - set(texts)):
            texts |= dict(zip(new, detector.encode_text(new), strict=True))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            scores = detector(batch.pixels.to(device), [texts[name] for name in names])
        found.add(detector, batch, PatchScores(scores.maps.float(), scores.image.float()))
    return found


def gathered(found: HeldOutScores, workers: int) -> HeldOutScores:
    """Return what all workers found, together, on each of them."""
    if workers == 1:
        return found
    parts: list[Any] = [None] * workers
    dist.all_gather_object(parts, found)
    together = HeldOutScores()
    for part in parts:
        together.merge(part)
    return together


def judge(detector: Any, found: HeldOutScores) -> HeldOutResult:
    """Calibrate the detector by what it found, and return how well it ranks.

    The detector keeps the new constants: its slice scores are made with them.
    """
    domains = [Domain(item.domain) for item in found.items]
    anomalous = torch.tensor([item.anomalous for item in found.items])
    scores = PatchScores(torch.stack(found.maps), torch.stack(found.image))
    calibration = calibrate(detector, scores, anomalous, domains)
    detector.config = calibration.applied_to(detector.config)
    ranked = torch.empty_like(scores.image)
    for rows, domain in chunks_of_domains(domains):
        part = PatchScores(scores.maps[rows], scores.image[rows])
        ranked[rows] = detector.slice_scores(part, domain)
    return HeldOutResult(
        pixel_auroc=_mean([counts.curve().auroc() for counts in found.pixels.values()]),
        image_auroc=_image_auroc(ranked.tolist(), found.items),
        calibration=calibration,
    )


def _image_auroc(scores: list[float], items: list[LabelledImage]) -> float:
    classes: dict[str, list[int]] = {"": list(range(len(items)))}
    for row, item in enumerate(items):
        classes.setdefault(item.class_name, []).append(row)
    each = {
        name: rank_images([scores[row] for row in rows], [items[row].anomalous for row in rows])
        for name, rows in classes.items()
    }
    everything = each.pop("").auroc()
    found = [curve.auroc() for curve in each.values()]
    return _mean([value for value in found if value is not None] or [everything])


def _mean(values: Iterable[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))
