"""What a detector's raw scores mean, measured on labelled pictures that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zsad.detectors.detector import Detector, Domain, PatchScores
from zsad.scores import ScoreRange

HEAT_BEGINS = 0.995
"""Share of normal pictures that heat leaves alone."""
RENDERED_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The constants of a detector's scores and of its overlays."""

    score_range: ScoreRange
    """What a normal picture typically has is 0, what a defective one typically has is 1."""
    heat: tuple[float, float]
    """Map values where a heat overlay begins and is full."""

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain values, for JSON."""
        ranges = self.score_range
        return {"map": list(ranges.map), "image": list(ranges.image), "heat": list(self.heat)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Sequence[float]]) -> Calibration:
        """Rebuild what `to_dict` wrote, also after a trip through JSON."""
        (low, high), (least, most), (begin, full) = (fields[n] for n in ("map", "image", "heat"))
        return cls(score_range=ScoreRange(map=(low, high), image=(least, most)), heat=(begin, full))

    def applied_to(self, config: Any) -> Any:
        """Return a method's configuration with these constants."""
        return replace(config, score_range=self.score_range, heat=self.heat)


@torch.inference_mode()
def calibrate(
    detector: Detector, scores: PatchScores, anomalous: Tensor, domains: Sequence[Domain]
) -> Calibration:
    """Measure what is usual, and what a defect looks like.

    A normal picture's median peak becomes 0 and a defective one's 1, but 1 is at least a standard
    deviation above 0: a detector that sees no difference is not made to see one. Heat begins where
    1 in 200 pixels of normal pictures lies, and is full at a defective picture's median peak.

    Args:
        detector: renders the maps.
        scores: of N pictures that were not trained on.
        anomalous: bool (N,).
        domains: what each picture is, N of them.

    Raises:
        ValueError: the pictures are all normal, or all anomalous.
    """
    if not 0 < int(anomalous.sum()) < len(anomalous):
        raise ValueError(
            f"{int(anomalous.sum())} of {len(anomalous)} pictures are anomalous: both kinds are "
            "needed to calibrate"
        )
    size = detector.backbone_config.image_size
    patch = size // scores.maps.shape[-1]
    peaks = torch.empty_like(scores.image)
    usual = []
    for rows, domain in chunks_of_domains(domains):
        maps = detector.render(scores.maps[rows], (size, size), domain)
        peaks[rows] = maps.amax(dim=(1, 2))
        one_a_patch = maps[~anomalous[rows], patch // 2 :: patch, patch // 2 :: patch]
        usual.append(one_a_patch.flatten().cpu().numpy())
    low, high = _typical(peaks, anomalous)
    begin = float(np.quantile(np.concatenate(usual), HEAT_BEGINS))
    return Calibration(
        score_range=ScoreRange(map=(low, high), image=_typical(scores.image, anomalous)),
        heat=(begin, max(high, begin + (high - low) / 10)),  # a slope, never a step
    )


def chunks_of_domains(domains: Sequence[Domain]) -> Iterator[tuple[slice, Domain]]:
    """Yield runs of one domain, short enough for their full-size maps to fit in memory."""
    start = 0
    for domain, run in groupby(domains):
        end = start + len(list(run))
        for first in range(start, end, RENDERED_AT_ONCE):
            yield slice(first, min(first + RENDERED_AT_ONCE, end)), domain
        start = end


def _typical(values: Tensor, anomalous: Tensor) -> tuple[float, float]:
    """Return what counts as 0 and as 1."""
    normal, found = values[~anomalous].median().item(), values[anomalous].median().item()
    return normal, max(found, normal + (values.std().item() or 1.0))
