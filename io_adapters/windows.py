"""Windows: which values of a scan become black and white, when the file does not say it well."""

from __future__ import annotations

import numpy as np

CT_BRAIN = (0.0, 80.0)
"""Hounsfield units, level 40 width 80."""
CT_SOFT_TISSUE = (-160.0, 240.0)
"""Hounsfield units, level 40 width 400."""

_SAMPLE = 2_000_000
_AIR = -900
"""Hounsfield units that only lung and air fall below; no other modality stores such values."""


def robust_window(values: np.ndarray, excluded: np.ndarray | None = None) -> tuple[float, float]:
    """Return the 0.5th and 99.5th percentile of the foreground of a whole volume.

    The foreground is what is finite, not excluded, and above the lowest value (the background).
    Where it has one value only, as in a mask, the window is that of all values.

    Args:
        values: Numbers of any shape.
        excluded: Booleans of the same shape, True where a value means nothing (padding).
    """
    usable = _usable(values, excluded)
    foreground = usable[usable > usable.min()] if usable.size else usable
    low, high = np.percentile(foreground, (0.5, 99.5)) if foreground.size else (0.0, 0.0)
    return (float(low), float(high)) if low < high else full_window(values, excluded)


def full_window(values: np.ndarray, excluded: np.ndarray | None = None) -> tuple[float, float]:
    """Return the lowest and highest value, with low < high even where all values are equal.

    Args:
        values: Numbers of any shape.
        excluded: Booleans of the same shape, True where a value means nothing.
    """
    kept = values if excluded is None else values[~excluded]
    finite = kept if kept.dtype.kind in "iu" else kept[np.isfinite(kept)]
    return _ordered(float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def looks_like_hounsfield(values: np.ndarray) -> bool:
    """Tell whether values of any shape are CT numbers: whole, and air among them."""
    usable = _usable(values, None)
    return bool(usable.size and usable.min() <= _AIR and np.array_equal(usable, np.rint(usable)))


def _usable(values: np.ndarray, excluded: np.ndarray | None) -> np.ndarray:
    """Return a sample of the finite values, one-dimensional and the same on every run."""
    step = values.size // _SAMPLE | 1  # odd, so that it does not keep to some columns of 2^n
    sample: np.ndarray = values.reshape(-1)[::step]
    usable = np.isfinite(sample)
    if excluded is not None:
        usable &= ~excluded.reshape(-1)[::step]
    kept: np.ndarray = sample[usable]
    return kept


def _ordered(low: float, high: float) -> tuple[float, float]:
    return (low, high) if low < high else (low, low + max(1.0, 1e-6 * abs(low)))
