"""What a labelled set says of scores: AUROC, average precision, the best F1, and AUPRO.

A map is rounded to float16, of which there are 65,536 values: counting how often each occurs on
normal and on anomalous pixels loses nothing more. Counts of images, workers and runs add up, and
a billion pixels fit in a few megabytes. No metric is approximated by a set of thresholds, and
equal scores share one: their order is never a matter of chance.

All metrics are fractions in 0…1; None where they mean nothing, as with one label only.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

BINS = 1 << 16
AUPRO_LIMIT = 0.3
"""False positive rate up to which AUPRO integrates (MVTec AD, doi 10.1007/s11263-020-01400-4)."""
_BITS = np.arange(BINS, dtype=np.uint16)
_ASCENDING = np.argsort(np.where(_BITS >> 15, ~_BITS, _BITS | 0x8000))
"""Bit patterns in the order of the numbers they stand for."""
_NOT_FINITE = (_BITS & 0x7C00) == 0x7C00
_ZERO, _MINUS_ZERO = 0x0000, 0x8000
_TOUCHING = np.ones((3, 3), dtype=bool)
"""Pixels of a region touch at a side or a corner, as in MVTec's own evaluation."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What is found and what is mistaken at falling thresholds, one for each score that occurs."""

    hits: np.ndarray
    """Anomalous pixels or images at or above each threshold, int64 (T,); the last is all."""
    false_alarms: np.ndarray
    """Normal ones, int64 (T,)."""

    @property
    def defined(self) -> bool:
        """Whether both labels occur."""
        return bool(self.hits.size and self.hits[-1] and self.false_alarms[-1])

    def auroc(self) -> float | None:
        """Return the chance that an anomalous score is above a normal one; a tie counts half."""
        if not self.defined:
            return None
        recall = np.append(0, self.hits) / self.hits[-1]
        rate = np.append(0, self.false_alarms) / self.false_alarms[-1]
        return float(np.trapezoid(recall, rate))

    def average_precision(self) -> float | None:
        """Return the precision at each threshold, averaged by the recall that it adds."""
        if not self.defined:
            return None
        precision = self.hits / (self.hits + self.false_alarms)
        return float(np.diff(self.hits, prepend=0) @ precision / self.hits[-1])

    def f1_max(self) -> float | None:
        """Return the F1 of the best threshold."""
        if not self.defined:
            return None
        return float(np.max(2 * self.hits / (self.hits + self.false_alarms + self.hits[-1])))


def rank_images(scores: Sequence[float], anomalous: Sequence[bool]) -> Curve:
    """Return the curve of image scores, one label each; scores keep their full precision.

    Raises:
        ValueError: a score is not finite.
    """
    values, labels = np.asarray(scores, dtype=np.float64), np.asarray(anomalous, dtype=bool)
    if not np.isfinite(values).all():
        raise ValueError(f"scores must be finite, one is {values[~np.isfinite(values)][0]}")
    distinct, ranks = np.unique(-values, return_inverse=True)
    counts = [np.bincount(ranks[labels == label], minlength=len(distinct)) for label in (1, 0)]
    return Curve(*(np.cumsum(count) for count in counts))


@dataclass(slots=True, eq=False)
class PixelCounts:
    """How often each float16 value occurs in anomaly maps; grows by `add` and by `merge`.

    All arrays are (65536,), indexed by the value's bit pattern.
    """

    normal: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    anomalous: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    covered: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.float64))
    """Anomalous pixels, each weighing one over the size of its region: the sum above a threshold
    is the sum of the regions' recalls."""
    regions: int = 0
    """Connected anomalous regions."""

    def add(self, anomaly_map: np.ndarray, mask: np.ndarray) -> None:
        """Count one image.

        Args:
            anomaly_map: Any float type (H, W); rounded to float16.
            mask: Which pixels are anomalous, bool (H, W).

        Raises:
            ValueError: shapes differ, or a value is no finite float16 (its size is above 65504).
        """
        if anomaly_map.ndim != 2 or anomaly_map.shape != mask.shape or mask.dtype != bool:
            raise ValueError(
                f"a map (H, W) and its mask of bool are expected, not {anomaly_map.shape} and "
                f"{mask.shape} of {mask.dtype}"
            )
        with np.errstate(over="ignore"):
            bits = anomaly_map.astype(np.float16).view(np.uint16)
        everywhere = np.bincount(bits.reshape(-1), minlength=BINS)
        if everywhere[_NOT_FINITE].any():
            raise ValueError("a map holds NaN, infinity, or a value beyond the range of float16")
        labels, regions = ndimage.label(mask, structure=_TOUCHING)
        marked, region_of = bits[mask], labels[mask] - 1
        anomalous = np.bincount(marked, minlength=BINS)
        weights = 1 / np.bincount(region_of, minlength=regions)[region_of]
        self.anomalous += anomalous
        self.normal += everywhere - anomalous
        self.covered += np.bincount(marked, weights, minlength=BINS)
        self.regions += regions

    def merge(self, other: PixelCounts) -> None:
        """Add what another one counted."""
        self.normal += other.normal
        self.anomalous += other.anomalous
        self.covered += other.covered
        self.regions += other.regions

    def curve(self) -> Curve:
        """Return the curve that AUROC, average precision and F1 are read from."""
        occurring = self._occurring()
        hits = np.cumsum(self._falling(self.anomalous)[occurring])
        return Curve(hits, np.cumsum(self._falling(self.normal)[occurring]))

    def aupro(self) -> float | None:
        """Return the mean recall of a region, averaged over false positive rates of 0…0.3.

        Between two thresholds both change linearly. Large regions count no more than small ones.
        """
        curve = self.curve()
        if not curve.defined:
            return None
        covered = np.cumsum(self._falling(self.covered)[self._occurring()])
        rates = np.append(0.0, curve.false_alarms / curve.false_alarms[-1])
        recalls = np.append(0.0, covered / self.regions)
        beyond = int(np.searchsorted(rates, AUPRO_LIMIT))
        last = slice(beyond - 1, beyond + 1)
        recalls[beyond] = np.interp(AUPRO_LIMIT, rates[last], recalls[last])
        rates[beyond] = AUPRO_LIMIT
        return float(np.trapezoid(recalls[: beyond + 1], rates[: beyond + 1]) / AUPRO_LIMIT)

    def to_bytes(self) -> bytes:
        """Return this without its empty bins, up to some hundred kilobytes for one image."""
        bins = np.flatnonzero(self.normal + self.anomalous)
        packed = io.BytesIO()
        np.savez(
            packed,
            bins=bins.astype(np.uint16),
            normal=self.normal[bins],
            anomalous=self.anomalous[bins],
            covered=self.covered[bins],
            regions=self.regions,
        )
        return packed.getvalue()

    @classmethod
    def from_bytes(cls, packed: bytes) -> PixelCounts:
        """Rebuild what `to_bytes` wrote."""
        counts = cls()
        with np.load(io.BytesIO(packed)) as stored:
            for name in ("normal", "anomalous", "covered"):
                getattr(counts, name)[stored["bins"]] = stored[name]
            counts.regions = int(stored["regions"])
        return counts

    def _occurring(self) -> np.ndarray:
        """Tell which values occur, (65536,) from the highest to the lowest."""
        occurring: np.ndarray = self._falling(self.normal + self.anomalous) > 0
        return occurring

    @staticmethod
    def _falling(counts: np.ndarray) -> np.ndarray:
        """Return counts from the highest value to the lowest, those of -0 with those of 0."""
        together = counts.copy()
        together[_ZERO] += together[_MINUS_ZERO]
        together[_MINUS_ZERO] = 0
        falling: np.ndarray = together[_ASCENDING[::-1]]
        return falling
