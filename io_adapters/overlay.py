"""The picture of a scan: its worst slices as the model saw them, and again with heat on top.

Heat has one scale per model, not one per picture. Stretching every map to its own maximum would
paint something red into every scan, the normal ones included; on a fixed scale a normal scan
shows next to nothing, and two pictures can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import imagecodecs
import numpy as np
from PIL import Image, ImageDraw, ImageFont

RAMP = ((255, 228, 94), (255, 154, 46), (240, 62, 62), (205, 18, 140))
"""RGB of the heat from low to high: yellow, orange, red, magenta. Each is darker than the one
before, so that the order survives a grey printer and colour-blind eyes."""
MAX_ALPHA = 0.62
"""How much heat covers at the high mark and above: strong, but what is below can still be seen."""
MIN_SIDE, MAX_SIDE = 224, 448
"""Pixels of a picture's long side."""

CONTOUR = (255, 255, 255)
BACKGROUND = (17, 18, 20)
CAPTION_COLOUR = (176, 182, 190)
MIN_CAPTION = 72
"""Pixels a column needs for its caption; narrow slices get that much room."""
GAP = 6
_PNG_LEVEL, _PNG_AVERAGE = 2, 64
"""Of compression, and PNG's filter that subtracts the mean of the pixels above and to the left:
trying out all filters, and a level as programs have it by default, take seven times as long for a
twentieth less."""


def overlay_png(
    slices: np.ndarray,
    maps: np.ndarray,
    *,
    heat: tuple[float, float],
    spacing: tuple[float, float] = (1.0, 1.0),
    slice_numbers: Sequence[int] | None = None,
) -> bytes:
    """Draw slices and their anomaly maps as one PNG; the same input gives the same bytes.

    One slice is drawn beside its heat. Several become columns in the order given, with the heat
    in the row below. A thin line surrounds what exceeds the high mark.

    Args:
        slices: Display values, uint8 (N, H, W, C), C = 1 or 3.
        maps: Anomaly maps on the same grid, float (N, H, W). NaN is shown without heat.
        heat: The map values (low, high) where heat begins and where it is full. They belong to
            the model.
        spacing: Size of a pixel (row, column), in mm or any unit: the picture gets square pixels.
        slice_numbers: N numbers to write above the slices; None writes nothing.

    Returns:
        The bytes of an RGB PNG.

    Raises:
        ValueError: The arguments do not fit together.
    """
    _check(slices, maps, heat, spacing, slice_numbers)
    size = picture_size(slices.shape[1:3], spacing)
    plain = [enlarge(plane, size) for plane in slices]
    heated = [
        add_heat(picture, enlarge_map(plane, heat, size), heat)
        for picture, plane in zip(plain, maps, strict=True)
    ]
    grid = [[plain[0], heated[0]]] if len(plain) == 1 else [plain, heated]
    captions = None if slice_numbers is None else [f"slice {number}" for number in slice_numbers]
    sheet = np.asarray(_montage(grid, captions))
    return bytes(imagecodecs.png_encode(sheet, level=_PNG_LEVEL, filter=_PNG_AVERAGE))


def picture_size(
    shape: tuple[int, ...], spacing: tuple[float, float], max_side: int = MAX_SIDE
) -> tuple[int, int]:
    """Return the rows and columns of a slice's picture, in true proportion.

    Large slices are reduced to `max_side`. Small ones grow by a whole factor, so that every pixel
    of a low-resolution scan becomes equally large.

    Args:
        shape: (H, W) of the slice.
        spacing: Size of its pixels (row, column) in mm.
        max_side: Pixels of the long side.
    """
    finest = min(spacing)
    rows, columns = shape[0] * spacing[0] / finest, shape[1] * spacing[1] / finest
    side = max(rows, columns)
    scale = max_side / side if side > max_side else math.ceil(MIN_SIDE / side)
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def add_heat(picture: np.ndarray, values: np.ndarray, heat: tuple[float, float]) -> np.ndarray:
    """Return a picture, uint8 (H, W, 3), under the heat of map values (H, W).

    Pixels at or below the low mark stay exactly as they were.
    """
    low, high = heat
    hot = values > low  # of most pictures a small part
    colour, alpha = heat_colour((values[hot] - low) / (high - low))
    alpha = alpha[..., None]
    heated = picture.copy()
    heated[hot] = np.rint(picture[hot] * (1 - alpha) + colour * alpha)
    heated[_outline(values >= high)] = CONTOUR
    return heated


def enlarge(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a slice, uint8 (H, W, C), as RGB (rows, columns, 3) of a size."""
    image = Image.fromarray(plane[..., 0] if plane.shape[-1] == 1 else plane)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR).convert("RGB"))


def enlarge_map(values: np.ndarray, heat: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Return a map (H, W) as float64 (rows, columns) of a size.

    What is not finite becomes a mark first, because one NaN would spread over its neighbours.
    """
    low, high = heat
    finite = np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low)
    image = Image.fromarray(finite).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float64)


def heat_colour(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return RGB 0…255 (…, 3) and opacity 0…`MAX_ALPHA` (…) of places on the heat scale.

    Args:
        position: 0 is the low mark and 1 the high mark; what is beyond looks like the mark.
    """
    unit = np.clip(position, 0.0, 1.0)
    stops = np.linspace(0.0, 1.0, len(RAMP))
    channels = [np.interp(unit, stops, channel) for channel in zip(*RAMP, strict=True)]
    # The root lets yellow be seen at all: it is the first third of the scale.
    return np.stack(channels, axis=-1), MAX_ALPHA * np.sqrt(unit)


def _outline(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask (H, W) that touch, by a side, a pixel outside of it."""
    padded = np.pad(mask, 1, mode="edge")  # so that the border of the picture is no outline
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inner)


def _montage(grid: list[list[np.ndarray]], captions: list[str] | None) -> Image.Image:
    """Put equally large pictures (H, W, 3) on a dark sheet, captions above the first row."""
    height, width = grid[0][0].shape[:2]
    cell = max(width, MIN_CAPTION) if captions else width
    size = max(14, cell // 18)  # a page shows the sheet reduced: text has to grow with it
    top = size * 3 // 2 if captions else 0
    across, down = cell + GAP, height + GAP
    sheet = Image.new(
        "RGB", (len(grid[0]) * across - GAP, top + len(grid) * down - GAP), BACKGROUND
    )
    for row, pictures in enumerate(grid):
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (column * across, top + row * down))
    font, draw = ImageFont.load_default(size), ImageDraw.Draw(sheet)
    for column, caption in enumerate(captions or []):
        draw.text((column * across + 3, 0), caption, fill=CAPTION_COLOUR, font=font)
    return sheet


def _check(
    slices: np.ndarray,
    maps: np.ndarray,
    heat: tuple[float, float],
    spacing: tuple[float, float],
    slice_numbers: Sequence[int] | None,
) -> None:
    if slices.ndim != 4 or slices.shape[-1] not in (1, 3) or 0 in slices.shape:
        raise ValueError(f"slices must be (N, H, W, 1 or 3) and not empty, are {slices.shape}")
    if slices.dtype != np.uint8:
        raise ValueError(f"slices must be uint8, are {slices.dtype}")
    if maps.shape != slices.shape[:3]:
        raise ValueError(f"maps must be {slices.shape[:3]} like the slices, are {maps.shape}")
    if not heat[0] < heat[1]:
        raise ValueError(f"heat must be (low, high) with low < high, is {heat}")
    if not all(0 < size < math.inf for size in spacing):
        raise ValueError(f"spacing must be two positive sizes, is {spacing}")
    if slice_numbers is not None and len(slice_numbers) != len(slices):
        raise ValueError(f"{len(slice_numbers)} slice numbers for {len(slices)} slices")
