"""Windows: what is chosen to be black and white."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_adapters.scan import Scan
from io_adapters.windows import (
    full_window,
    looks_like_hounsfield,
    parse_choice,
    rewindow,
    robust_window,
)


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


@pytest.mark.parametrize("air", [1, 3, 10])
def test_the_noise_around_a_body_does_not_dim_it(air: int) -> None:
    """The same head in a larger field of view looks the same."""
    rng = np.random.default_rng(0)
    head = rng.uniform(200, 1000, 20_000)
    noise = np.abs(rng.normal(0, 12, air * 20_000))
    low, high = robust_window(np.concatenate([head, noise]))
    assert 0 <= low < 30
    assert high == pytest.approx(np.percentile(head, 99.5), rel=0.01)


def scan_of(*, hounsfield: bool = False, colours: bool = False) -> Scan:
    shape = (1, 2, 2, 3) if colours else (1, 2, 2)
    return Scan(pixels=np.zeros(shape, np.int16), window=(1, 2), hounsfield=hounsfield)


@pytest.mark.parametrize(
    ("choice", "window"),
    [
        ("auto", (1, 2)),
        ("brain", (0, 80)),
        ("soft", (-160, 240)),
        ("lung", (-1350, 150)),
        ("bone", (-500, 1500)),
        ("-20,60.5", (-20, 60.5)),
    ],
)
def test_a_window_can_be_asked_for(choice: str, window: tuple[float, float]) -> None:
    assert rewindow(scan_of(hounsfield=True), choice).window == window


def test_presets_are_for_ct_alone_and_numbers_for_all_that_is_grey() -> None:
    assert rewindow(scan_of(), "brain").window == (1, 2)
    assert rewindow(scan_of(), "3,4").window == (3, 4)
    assert rewindow(scan_of(colours=True), "3,4").window == (1, 2)


@pytest.mark.parametrize("choice", ["heart", "1", "2,1", "1,1", "1,2,3", "nan,1", "0,inf", ""])
def test_what_is_no_window_is_refused(choice: str) -> None:
    with pytest.raises(ValueError, match="brain"):
        parse_choice(choice)
