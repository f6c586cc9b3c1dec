"""Display values: what a window shows as black, grey and white."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from io_adapters.display import to_display
from io_adapters.scan import Scan


def show(values: list[float], dtype: type = np.float32, **fields: object) -> list[int]:
    pixels = np.array(values, dtype=dtype).reshape(1, 1, -1)
    return to_display(Scan(pixels=pixels, **fields)).ravel().tolist()  # type: ignore[arg-type]


def test_the_window_becomes_0_to_255_and_the_rest_is_clipped() -> None:
    assert show([-500, -160, 40, 240, 9000], np.int16, window=(-160, 240)) == [0, 0, 128, 255, 255]


def test_bytes_in_their_own_window_stay_as_they_are() -> None:
    assert show([0, 7, 255], np.uint8, window=(0, 255)) == [0, 7, 255]


def test_inverted_scans_show_low_values_bright() -> None:
    assert show([0, 7, 255], np.uint8, window=(0, 255), invert=True) == [255, 248, 0]
    assert show([0, 100], np.uint16, window=(0, 100), invert=True) == [255, 0]


def test_what_is_no_number_is_black() -> None:
    assert show([np.nan, np.inf, -np.inf, 1], window=(0, 1)) == [0, 0, 0, 255]


def test_colours_keep_three_channels_and_grey_has_one() -> None:
    grey = Scan(pixels=np.zeros((2, 3, 4), np.uint8), window=(0, 255))
    colour = Scan(pixels=np.zeros((2, 3, 4, 3), np.uint16), window=(0, 4095))
    assert to_display(grey).shape == (2, 3, 4, 1)
    assert to_display(colour).shape == (2, 3, 4, 3)


@given(st.lists(st.floats(width=32), min_size=2, max_size=9))
def test_order_is_kept(values: list[float]) -> None:
    shown = show(sorted(v for v in values if np.isfinite(v)) or [0.0], window=(-10, 10))
    assert shown == sorted(shown)
