import io

import numpy as np
import pytest
from PIL import Image

from io_adapters.overlay import (
    CONTOUR,
    GAP,
    MAX_SIDE,
    MIN_SIDE,
    RAMP,
    add_heat,
    heat_colour,
    overlay_png,
    picture_size,
)

HEAT = (0.2, 0.6)
SIDE = 256


def decode(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def noise(n: int, channels: int = 1) -> np.ndarray:
    shape = (n, SIDE, SIDE, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def flat(n: int, value: float) -> np.ndarray:
    return np.full((n, SIDE, SIDE), value, dtype=np.float32)


@pytest.mark.parametrize("value", [-3.0, 0.0, 0.2, np.nan, -np.inf])
def test_a_map_at_or_below_low_or_nan_leaves_every_pixel_unchanged(value: float) -> None:
    sheet = decode(overlay_png(noise(1), flat(1, value), heat=HEAT))
    assert np.array_equal(sheet[:, :SIDE], sheet[:, SIDE + GAP :])
    assert np.array_equal(sheet[:, :SIDE, 0], noise(1)[0, ..., 0])


def test_nan_is_without_heat_where_low_is_negative() -> None:
    sheet = decode(overlay_png(noise(1), flat(1, np.nan), heat=(-2.0, 1.0)))
    assert np.array_equal(sheet[:, :SIDE], sheet[:, SIDE + GAP :])


def test_heat_depends_on_the_fixed_scale_and_not_on_the_rest_of_the_picture() -> None:
    maps = flat(1, 0.3)
    alone = decode(overlay_png(noise(1), maps, heat=HEAT))
    maps[0, :32, :32] = 50.0
    beside_a_peak = decode(overlay_png(noise(1), maps, heat=HEAT))
    assert np.array_equal(alone[64:], beside_a_peak[64:])


def test_heat_grows_with_the_value_and_stops_at_the_high_mark() -> None:
    alpha = heat_colour(np.array([-1.0, 0.0, 0.3, 0.6, 1.0, 7.0]))[1]
    assert alpha[0] == alpha[1] == 0
    assert (np.diff(alpha[1:5]) > 0).all()
    assert alpha[4] == alpha[5] < 1


def test_the_ramp_gets_darker_so_that_it_can_be_read_in_grey() -> None:
    luminance = np.array(RAMP) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < 0).all()


def test_one_nan_does_not_cool_its_neighbours() -> None:
    maps = flat(1, 0.5)
    maps[0, 128, 128] = np.nan
    heated = decode(overlay_png(noise(1), maps, heat=HEAT))[:, SIDE + GAP :]
    whole = decode(overlay_png(noise(1), flat(1, 0.5), heat=HEAT))[:, SIDE + GAP :]
    assert (heated != whole).any(axis=-1).sum() <= 1


def test_a_line_encloses_what_exceeds_the_high_mark() -> None:
    values = np.zeros((8, 8))
    values[2:6, 2:6] = 1.0
    heated = add_heat(np.zeros((8, 8, 3), dtype=np.uint8), values, HEAT)
    line = (heated == CONTOUR).all(axis=-1)
    expected = np.zeros((8, 8), dtype=bool)
    expected[2:6, 2:6] = True
    expected[3:5, 3:5] = False
    assert np.array_equal(line, expected)


def test_a_map_above_the_high_mark_everywhere_has_no_line_around_the_picture() -> None:
    heated = add_heat(np.zeros((8, 8, 3), dtype=np.uint8), np.ones((8, 8)), HEAT)
    assert not (heated == CONTOUR).all(axis=-1).any()


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((300, 300), (1.0, 1.0), (300, 300)),  # between the limits: as it is
        ((64, 64), (1.0, 1.0), (256, 256)),  # a whole factor
        ((4096, 2048), (0.1, 0.1), (448, 224)),
        ((100, 200), (2.0, 1.0), (400, 400)),  # anisotropic pixels become square
        ((30, 300), (5.0, 0.5), (300, 300)),
        ((1, 5000), (1.0, 1.0), (1, 448)),
    ],
)
def test_a_picture_has_true_proportions(
    shape: tuple[int, int], spacing: tuple[float, float], expected: tuple[int, int]
) -> None:
    assert picture_size(shape, spacing) == expected


@pytest.mark.parametrize("side", [1, 7, 95, 223, 224, 225, 447, 448, 449, 6000])
def test_the_long_side_is_bounded(side: int) -> None:
    assert MIN_SIDE <= max(picture_size((side, 1), (1.0, 1.0))) <= MAX_SIDE


def test_several_slices_are_columns_with_heat_below() -> None:
    sheet = decode(overlay_png(noise(3), flat(3, 0.0), heat=HEAT))
    assert sheet.shape == (2 * SIDE + GAP, 3 * SIDE + 2 * GAP, 3)
    assert np.array_equal(sheet[:SIDE], sheet[SIDE + GAP :])


def test_slice_numbers_are_written_above_the_pictures_and_not_on_them() -> None:
    without = decode(overlay_png(noise(2), flat(2, 0.0), heat=HEAT))
    written = decode(overlay_png(noise(2), flat(2, 0.0), heat=HEAT, slice_numbers=[7, 12]))
    assert np.array_equal(written[-without.shape[0] :], without)
    assert len(np.unique(written[: -without.shape[0]])) > 2


def test_colour_stays_colour() -> None:
    sheet = decode(overlay_png(noise(1, channels=3), flat(1, 0.0), heat=HEAT))
    assert np.array_equal(sheet[:, :SIDE], noise(1, channels=3)[0])


def test_the_same_input_gives_the_same_bytes() -> None:
    def draw() -> bytes:
        return overlay_png(noise(2), flat(2, 0.5), heat=HEAT, slice_numbers=[3, 4])

    assert draw() == draw()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heat": (0.6, 0.6)}, r"low < high"),
        ({"heat": (np.nan, 0.6)}, r"low < high"),
        ({"spacing": (0.0, 1.0)}, r"spacing"),
        ({"spacing": (1.0, np.nan)}, r"spacing"),
        ({"slice_numbers": [1]}, r"1 slice numbers for 2 slices"),
        ({"maps": np.zeros((2, 3, 3), dtype=np.float32)}, r"\(2, 3, 3\)"),
        ({"slices": np.zeros((2, 256, 256, 1), dtype=np.uint16)}, r"uint16"),
        ({"slices": np.zeros((0, 256, 256, 1), dtype=np.uint8)}, r"not empty"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change: dict[str, object], message: str) -> None:
    arguments = {"slices": noise(2), "maps": flat(2, 0.0), "heat": HEAT} | change
    with pytest.raises(ValueError, match=message):
        overlay_png(**arguments)
