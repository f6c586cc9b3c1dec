import math

from io_adapters.report.charts import (
    HEIGHT,
    MAX_BARS,
    Scale,
    histogram_path,
    slice_bars,
)

UNIT = Scale(low=0.0, high=1.0)


def heights(path: str) -> list[float]:
    return [float(stroke.split("v-")[1]) for stroke in path.split("M")[1:]]


def test_a_scale_spans_the_numbers_and_ignores_what_is_missing() -> None:
    assert Scale.of([None, 0.5, math.nan, -1.0]) == Scale(low=-1.0, high=0.5)
    assert Scale.of([None]) == UNIT


def test_a_value_lies_inside_its_scale() -> None:
    scale = Scale(low=2.0, high=4.0)
    assert [scale.place(value) for value in (1.0, 2.0, 3.0, 9.0)] == [0.0, 0.0, 0.5, 1.0]
    assert Scale(low=2.0, high=2.0).place(2.0) == 0.5


def test_a_slice_without_a_score_leaves_a_gap() -> None:
    assert len(heights(slice_bars([None, 0.0, math.nan, 1.0], 3, UNIT).path)) == 2


def test_the_worst_slice_is_one_of_the_bars() -> None:
    bars = slice_bars([0.1, 0.9, 0.2], 1, UNIT)
    assert bars.worst
    assert bars.worst in bars.path
    assert slice_bars([0.1, 0.9], None, UNIT).worst == ""


def test_a_long_volume_keeps_its_single_bad_slice() -> None:
    scores = [0.0] * 5000
    scores[3210] = 1.0
    bars = slice_bars(scores, 3210, UNIT)
    assert len(heights(bars.path)) <= MAX_BARS
    assert max(heights(bars.path)) == heights(bars.worst)[0] == HEIGHT


def test_the_distribution_is_a_closed_outline_even_without_scores() -> None:
    for scores in ([], [None], [0.2, 0.2, 0.9]):
        path = histogram_path(scores, UNIT)
        assert path.startswith("M0 ")
        assert path.endswith("Z")
        assert "nan" not in path
