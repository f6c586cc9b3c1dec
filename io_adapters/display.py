"""Display values: the one place where physical values become what model and person see."""

from __future__ import annotations

import numpy as np

from io_adapters.scan import Scan


def to_display(scan: Scan) -> np.ndarray:
    """Return uint8 (S, H, W, C), C = 1 (grey) or 3 (RGB), of a scan through its window.

    Values outside the window are clipped, NaN and infinities become black before inversion.
    """
    pixels: np.ndarray = scan.pixels if scan.pixels.ndim == 4 else scan.pixels[..., None]
    low, high = scan.window
    if pixels.dtype == np.uint8 and low == 0 and high == 255:
        return 255 - pixels if scan.invert else pixels
    out = np.empty(pixels.shape, dtype=np.uint8)
    for plane, target in zip(pixels, out, strict=True):  # slice by slice: floats cost 4× the memory
        unit = (plane.astype(np.float32) - np.float32(low)) / np.float32(high - low)
        unit = np.clip(np.nan_to_num(unit, nan=0.0, posinf=0.0, neginf=0.0), 0.0, 1.0)
        np.rint(255 * (1 - unit if scan.invert else unit), out=unit)
        target[...] = unit.astype(np.uint8)
    return out
