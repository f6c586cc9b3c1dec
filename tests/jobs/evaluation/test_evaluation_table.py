"""The table: means over classes, a dash and an empty cell for what has no meaning."""

from __future__ import annotations

import csv

import pytest

from jobs.evaluation.published import PUBLISHED
from jobs.evaluation.table import METRICS, Row, as_csv, as_text, mean_of

ROWS = [
    Row("nut", 4, 2, dict.fromkeys(METRICS, 0.5)),
    Row("polyp", 6, 6, dict.fromkeys(METRICS, 0.75) | {"image_auroc": None}),
]


def test_mean_of_a_metric_is_over_the_classes_that_have_it() -> None:
    mean = mean_of(ROWS)
    assert (mean.images, mean.anomalous) == (10, 8)
    assert (mean.metrics["image_auroc"], mean.metrics["pixel_ap"]) == (0.5, 0.625)
    assert mean_of(ROWS[1:]).metrics["image_auroc"] is None


def test_text_is_in_percent_and_ends_with_mean_and_published() -> None:
    head, nut, polyp, mean, published = as_text(
        ROWS, ("AA-CLIP published", PUBLISHED["aaclip"].means["kvasir"])
    ).splitlines()
    assert len({len(line) for line in (head, nut, polyp, mean, published)}) == 1
    assert nut.split() == ["nut", "4", "2", *["50.0"] * 7]
    assert polyp.split()[3] == "–"
    assert mean.split()[:4] == ["mean", "10", "8", "50.0"]
    assert published.split() == ["AA-CLIP", "published", "–", "–", "–", "87.1", "55.8", "–", "–"]


def test_csv_is_in_fractions_with_empty_cells() -> None:
    rows = list(csv.DictReader(as_csv(ROWS).splitlines()))
    assert [row["class"] for row in rows] == ["nut", "polyp", "mean"]
    assert rows[1]["image_auroc"] == ""
    assert float(rows[2]["pixel_ap"]) == 0.625


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_numbers_are_fractions_of_known_metrics(name: str) -> None:
    for means in PUBLISHED[name].means.values():
        assert set(means) <= set(METRICS)
        assert all(value is None or 0 < value < 1 for value in means.values())
