"""The table of an evaluation: a row a class, their mean, and what was published."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

METRICS = (
    "image_auroc",
    "image_ap",
    "image_f1_max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1_max",
    "pixel_aupro",
)
_HEADINGS = ("I-AUROC", "I-AP", "I-F1", "P-AUROC", "P-AP", "P-F1", "AUPRO")


class Row(NamedTuple):
    """A class, or the mean of all classes."""

    name: str
    images: int
    anomalous: int
    metrics: dict[str, float | None]
    """By the names in `METRICS`, fractions; None where a metric means nothing."""


def mean_of(rows: Sequence[Row]) -> Row:
    """Return the plain mean over classes, each metric's over the classes that have it."""
    metrics: dict[str, float | None] = {}
    for name in METRICS:
        values = [value for row in rows if (value := row.metrics[name]) is not None]
        metrics[name] = sum(values) / len(values) if values else None
    images, anomalous = sum(row.images for row in rows), sum(row.anomalous for row in rows)
    return Row("mean", images, anomalous, metrics)


def as_text(rows: Sequence[Row], published: tuple[str, dict[str, float | None]] | None) -> str:
    """Lay the table out for a terminal, in percent; the mean and published numbers come last.

    Args:
        rows: of the classes.
        published: whose numbers, and the numbers.
    """
    lines = [["class", "images", "anomalous", *_HEADINGS]]
    for row in [*rows, mean_of(rows)]:
        lines.append([row.name, str(row.images), str(row.anomalous), *_percents(row.metrics)])
    if published:
        title, means = published
        lines.append([title, "", "", *_percents(means)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def as_csv(rows: Sequence[Row]) -> str:
    """Return the table as CSV, in fractions; an empty cell is a metric that means nothing."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(["class", "images", "anomalous", *METRICS])
    for row in [*rows, mean_of(rows)]:
        writer.writerow([row.name, row.images, row.anomalous, *(row.metrics[m] for m in METRICS)])
    return target.getvalue()


def _percents(metrics: dict[str, float | None]) -> list[str]:
    values = [metrics.get(name) for name in METRICS]
    return ["–" if value is None else f"{100 * value:.1f}" for value in values]
