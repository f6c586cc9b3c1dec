"""Siemens mosaics: the slices of a volume as tiles of one picture, taken apart again.

How many tiles there are and in which direction they follow each other is told by Siemens' private
attributes alone; without them a mosaic is refused, or has no geometry.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from pydicom import Dataset

from io_adapters.dicom_attributes import first_number, integer, numbers, private_value, value_of
from io_adapters.dicom_geometry import Placement, place_frames
from io_adapters.dicom_header import image_type
from io_adapters.scan import UnreadableError, UnsupportedError

with warnings.catch_warnings():  # it says of itself that it is experimental
    warnings.simplefilter("ignore")
    from nibabel.nicom import csareader

_UIH_TILES = (0x0065, 0x1050)
_ALONG = 0.999
"""Cosine between the tiles' direction and the normal of their plane."""


def count_tiles(dataset: Dataset) -> int:
    """Return how many slices an image is a mosaic of, 1 for an ordinary image.

    Raises:
        UnsupportedError: it is a mosaic of an unknown number, or another vendor's.
    """
    called_mosaic = "MOSAIC" in image_type(dataset)
    if not called_mosaic and value_of(dataset, "Modality") != "MR":
        return 1
    count = integer(private_value(dataset, 0x0019, 0x0A, "SIEMENS MR HEADER"))
    if count < 1 and called_mosaic:
        count = integer(_csa_values(dataset).get("NumberOfImagesInMosaic"))
        if count < 1:
            raise UnsupportedError("the mosaic does not tell how many slices it is made of")
    if count < 1 and _UIH_TILES in dataset and integer(dataset[_UIH_TILES].value) > 1:
        raise UnsupportedError("a grid of slices of this vendor is not handled")
    return max(count, 1)


def take_apart(mosaic: np.ndarray, count: int) -> np.ndarray:
    """Return the first `count` tiles (count, h, w) of a mosaic (H, W), row by row.

    Raises:
        UnreadableError: that many tiles do not fill the picture.
    """
    side = _side(count)
    height, width = mosaic.shape[0] // side, mosaic.shape[1] // side
    if (height * side, width * side) != mosaic.shape:
        rows, columns = mosaic.shape
        raise UnreadableError(f"{rows}x{columns} pixels are no mosaic of {count} slices")
    tiles = mosaic.reshape(side, height, side, width).swapaxes(1, 2)
    return tiles.reshape(-1, height, width)[:count]


def place_tiles(dataset: Dataset, count: int) -> list[Placement | None]:
    """Return where the tiles of a mosaic lie, None for all where the header does not tell.

    The header's position is that of a slice as large as the mosaic around the centre of the first
    slice, so half of what the mosaic is larger by is added.
    """
    (whole,) = place_frames(dataset, 1)
    values = _csa_values(dataset)
    normal = numbers(values.get("SliceNormalVector"), 3)
    distance = first_number(dataset.get("SpacingBetweenSlices"))
    # Slices numbered from the other end may be tiled from the other end as well, or not.
    reversed_numbers = integer(values.get("ProtocolSliceNumber")) > 0
    if whole is None or normal is None or not distance or distance < 0 or reversed_numbers:
        return [None] * count
    if abs(normal @ whole.normal) < _ALONG:
        return [None] * count
    share = (1 - 1 / _side(count)) / 2
    between_rows, between_columns = whole.spacing
    corner = whole.along_row * between_columns * dataset.Columns * share
    corner = corner + whole.along_column * between_rows * dataset.Rows * share
    return [whole.shifted(corner + k * distance * normal) for k in range(count)]


def _side(count: int) -> int:
    """Return how many tiles are in a row of a mosaic, and in a column."""
    return math.isqrt(count - 1) + 1


def _csa_values(dataset: Dataset) -> dict[str, list[object]]:
    """Return Siemens' private image attributes by name, none where the header lacks them."""
    header = csareader.get_csa_header(dataset)
    tags = header["tags"] if header else {}
    return {name: tag["items"] for name, tag in tags.items()}
