"""Windows: what is chosen to be black and white."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from io_adapters.windows import full_window, looks_like_hounsfield, robust_window


def test_background_and_outliers_do_not_move_the_robust_window() -> None:
    values = np.zeros(100_000)
    values[:10_000] = np.linspace(100, 200, 10_000)
    values[0] = 1e9
    low, high = robust_window(values)
    assert 100 < low < 102 and 198 < high < 200.1


def test_excluded_values_do_not_count() -> None:
    values = np.array([-2000.0, 0, 1, 2, 3, 9000])
    excluded = (values < -1000) | (values > 5000)
    assert full_window(values, excluded) == (0, 3)
    assert robust_window(values, excluded)[1] < 3.1


def test_a_mask_has_the_window_of_its_two_values() -> None:
    assert robust_window(np.array([0, 0, 0, 255, 255], np.uint8)) == (0, 255)


def test_nothing_but_nan_has_a_window_all_the_same() -> None:
    assert robust_window(np.full(4, np.nan)) == full_window(np.full(4, np.nan)) == (0, 1)


@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_low_is_below_high_whatever_the_values(values: list[float]) -> None:
    for window in (robust_window, full_window):
        low, high = window(np.array(values, np.float32))
        assert low < high


def test_ct_numbers_are_whole_and_have_air_among_them() -> None:
    assert looks_like_hounsfield(np.array([-1000, 0, 400], np.int16))
    assert looks_like_hounsfield(np.array([-1000.0, np.nan, 400.0]))
    assert not looks_like_hounsfield(np.array([-1000.5, 0, 400]))
    assert not looks_like_hounsfield(np.array([0, 400], np.int16))
