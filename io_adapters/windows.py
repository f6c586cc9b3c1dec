"""Windows: which values of a scan become black and white, when the file does not say it well."""

from __future__ import annotations

import dataclasses

import numpy as np

from io_adapters.scan import Scan

CT_BRAIN = (0.0, 80.0)
"""Hounsfield units, level 40 width 80."""
CT_SOFT_TISSUE = (-160.0, 240.0)
"""Hounsfield units, level 40 width 400."""
CT_PRESETS = {
    "brain": CT_BRAIN,
    "soft": CT_SOFT_TISSUE,
    "lung": (-1350.0, 150.0),  # level -600 width 1500
    "bone": (-500.0, 1500.0),  # level 500 width 2000
}
"""Windows by the name of what they show."""
AUTO = "auto"
"""The window that the reader of a scan chooses."""

_SAMPLE = 2_000_000
_AIR = -900
"""Hounsfield units that only lung and air fall below; no other modality stores such values."""


def parse_choice(text: str) -> str | tuple[float, float]:
    """Return what a person asks for: "auto", the name of a preset, or (low, high).

    Raises:
        ValueError: it is none of these; the message says what there is.
    """
    if text == AUTO or text in CT_PRESETS:
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        names = ", ".join([AUTO, *CT_PRESETS])
        raise ValueError(f"{text}: choose from {names}, or give two numbers LOW,HIGH")
    return low, high


def rewindow(scan: Scan, choice: str) -> Scan:
    """Return a scan through another window: presets are for CT, numbers for all grey scans.

    Args:
        scan: As its reader made it.
        choice: What `parse_choice` takes.

    Raises:
        ValueError: there is no such choice.
    """
    wanted = parse_choice(choice)
    if isinstance(wanted, str):
        wanted = CT_PRESETS[wanted] if wanted != AUTO and scan.hounsfield else scan.window
    return scan if scan.pixels.ndim == 4 else dataclasses.replace(scan, window=wanted)


def robust_window(values: np.ndarray, excluded: np.ndarray | None = None) -> tuple[float, float]:
    """Return the window of what a whole volume shows, whatever surrounds it.

    Low is the 0.5th percentile of what is finite, not excluded, and above the lowest value. High
    is the 99.5th percentile of that part of it which is brighter than its mean (outliers aside):
    of the body, and not of the noise around it, of which there is more or less. Where only one
    value is left, as in a mask, the window is that of all values.

    Args:
        values: Numbers of any shape.
        excluded: Booleans of the same shape, True where a value means nothing (padding).
    """
    usable = _usable(values, excluded)
    foreground = usable[usable > usable.min()] if usable.size else usable
    if not foreground.size:
        return full_window(values, excluded)
    low, high = np.percentile(foreground, (0.5, 99.5))
    bright = foreground[foreground >= np.minimum(foreground, high).mean(dtype=np.float64)]
    high = np.percentile(bright, 99.5) if bright.size else high
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
