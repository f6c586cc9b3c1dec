"""Metrics equal scikit-learn's and a plain second implementation, and counts add up."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from zsad.metrics import Curve, PixelCounts, rank_images

Image = tuple[np.ndarray, np.ndarray]
"""A map and its mask."""


@st.composite
def images(draw: st.DrawFn, *, both_labels: bool = False) -> list[Image]:
    """Draw one to three maps, 4 to 9 pixels wide, with many or few ties, and blobs as masks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread, step = draw(st.sampled_from([(1.0, 0.0), (400.0, 0.0), (2.0, 1.0), (0.0, 1.0)]))
    drawn = []
    for _ in range(draw(st.integers(1, 3))):
        height, width = draw(st.integers(4, 9)), draw(st.integers(4, 9))
        values = rng.normal(0, spread, (height, width))
        values = np.round(values / step) * step if step else values
        mask = rng.random((height, width)) < draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))
        drawn.append((values.astype(np.float32), mask))
    if both_labels:
        drawn[0][1].flat[:2] = (True, False)
    return drawn


def counted(drawn: list[Image]) -> PixelCounts:
    counts = PixelCounts()
    for values, mask in drawn:
        counts.add(values, mask)
    return counts


def flat(drawn: list[Image]) -> tuple[np.ndarray, np.ndarray]:
    """Return all labels and all values, rounded as the counter rounds them."""
    values = np.concatenate([values.ravel() for values, _ in drawn]).astype(np.float16)
    return np.concatenate([mask.ravel() for _, mask in drawn]), values.astype(np.float64)


def best_f1(labels: np.ndarray, values: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(labels, values)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)))


def regions_of(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """Return the connected regions of a mask, neighbours at corners included, by flooding."""
    left = {(int(r), int(c)) for r, c in zip(*np.nonzero(mask), strict=True)}
    found = []
    while left:
        region, front = set(), [left.pop()]
        while front:
            row, column = front.pop()
            region.add((row, column))
            near = {(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)} & left
            left -= near
            front += near
        found.append(region)
    return found


def slow_aupro(drawn: list[Image]) -> float:
    """Go through the thresholds one by one, then add up thin columns below the curve."""
    rounded = [(values.astype(np.float16), mask) for values, mask in drawn]
    regions = [(values, region) for values, mask in rounded for region in regions_of(mask)]
    normal = np.concatenate([values[~mask] for values, mask in rounded])
    points = [(0.0, 0.0)]
    for threshold in sorted({float(v) for values, _ in rounded for v in values.flat}, reverse=True):
        recalls = [np.mean([values[p] >= threshold for p in region]) for values, region in regions]
        points.append((float(np.mean(normal >= threshold)), float(np.mean(recalls))))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 < 0.3 and x1 > x0:
            end = min(x1, 0.3)
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / 0.3


@given(images(both_labels=True))
def test_curves_equal_scikit_learn_on_rounded_values(drawn: list[Image]) -> None:
    curve = counted(drawn).curve()
    labels, values = flat(drawn)
    assert curve.auroc() == pytest.approx(roc_auc_score(labels, values))
    assert curve.average_precision() == pytest.approx(average_precision_score(labels, values))
    assert curve.f1_max() == pytest.approx(best_f1(labels, values))


@given(images(both_labels=True))
def test_aupro_equals_a_walk_through_all_thresholds(drawn: list[Image]) -> None:
    assert counted(drawn).aupro() == pytest.approx(slow_aupro(drawn))


@given(images(), images(), images())
def test_merging_in_any_order_equals_counting_at_once(
    one: list[Image], two: list[Image], three: list[Image]
) -> None:
    together = counted([*one, *two, *three])
    left, right = counted(one), counted(three)
    left.merge(counted(two))
    left.merge(counted(three))
    right.merge(counted(one))
    right.merge(counted(two))
    for merged in (left, right):
        np.testing.assert_array_equal(merged.normal, together.normal)
        np.testing.assert_array_equal(merged.anomalous, together.anomalous)
        np.testing.assert_allclose(merged.covered, together.covered, rtol=1e-12)
        assert merged.regions == together.regions


@given(images())
def test_counts_survive_the_trip_between_workers(drawn: list[Image]) -> None:
    counts = counted(drawn)
    back = PixelCounts.from_bytes(counts.to_bytes())
    for name in ("normal", "anomalous", "covered"):
        np.testing.assert_array_equal(getattr(back, name), getattr(counts, name))
    assert back.regions == counts.regions


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), min_size=2, max_size=40))
def test_image_curves_equal_scikit_learn_in_full_precision(
    labelled: list[tuple[float, bool]],
) -> None:
    values, labels = [v for v, _ in labelled], [label for _, label in labelled]
    labels[:2] = (True, False)
    curve = rank_images(values, labels)
    assert curve.auroc() == pytest.approx(roc_auc_score(labels, values))
    assert curve.average_precision() == pytest.approx(average_precision_score(labels, values))
    assert curve.f1_max() == pytest.approx(best_f1(np.array(labels), np.array(values)))


def test_a_map_that_equals_its_mask_is_perfect() -> None:
    mask = np.eye(6, dtype=bool)
    counts = counted([(mask.astype(np.float32), mask)])
    curve = counts.curve()
    found = (curve.auroc(), curve.average_precision(), curve.f1_max(), counts.aupro())
    assert found == pytest.approx((1.0, 1.0, 1.0, 1.0))


def test_one_value_everywhere_tells_nothing() -> None:
    mask = np.zeros((4, 5), dtype=bool)
    mask[0] = True
    counts = counted([(np.full((4, 5), 7.0), mask)])
    assert counts.curve().auroc() == 0.5
    assert counts.curve().average_precision() == 0.25
    assert counts.aupro() == pytest.approx(0.15)  # the straight line, up to 0.3


def test_a_small_region_counts_as_much_as_a_large_one() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[:4], mask[6, 6] = True, True
    only_large, only_small = np.zeros((10, 10)), np.zeros((10, 10))
    only_large[:4], only_small[6, 6] = 1, 1
    large, small = counted([(only_large, mask)]).aupro(), counted([(only_small, mask)]).aupro()
    assert large == pytest.approx(small)


def test_minus_zero_is_zero() -> None:
    mask = np.array([[True, False]])
    assert counted([(np.array([[0.0, -0.0]]), mask)]).curve().auroc() == 0.5


@pytest.mark.parametrize(
    "curve",
    [
        lambda: PixelCounts().curve(),
        lambda: counted([(np.eye(3), np.ones((3, 3), bool))]).curve(),
        lambda: counted([(np.eye(3), np.zeros((3, 3), bool))]).curve(),
        lambda: rank_images([], []),
        lambda: rank_images([1.0, 2.0], [True, True]),
        lambda: rank_images([1.0, 2.0], [False, False]),
    ],
)
def test_with_one_label_only_there_is_no_metric(curve: Callable[[], Curve]) -> None:
    empty = curve()
    assert (empty.auroc(), empty.average_precision(), empty.f1_max()) == (None, None, None)


@pytest.mark.parametrize("marked", [True, False])
def test_with_one_label_only_there_is_no_aupro(marked: bool) -> None:
    assert counted([(np.eye(3), np.full((3, 3), marked))]).aupro() is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 70_000.0])
def test_what_is_no_finite_float16_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="NaN, infinity"):
        PixelCounts().add(np.full((2, 2), value, np.float32), np.zeros((2, 2), bool))
    if abs(value) != 70_000:
        with pytest.raises(ValueError, match="finite"):
            rank_images([0.0, value], [True, False])


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 3), bool), np.zeros((2, 2), np.uint8)], ids=["shape", "type"]
)
def test_a_mask_of_another_shape_or_type_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        PixelCounts().add(np.zeros((2, 2)), mask)
