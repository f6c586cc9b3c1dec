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


def _aaclip(
    pixel_auroc: float, pixel_ap: float, image_auroc: float | None, image_ap: float | None
) -> dict[str, float | None]:
    return {
        "image_auroc": image_auroc,
        "image_ap": image_ap,
        "pixel_auroc": pixel_auroc,
        "pixel_ap": pixel_ap,
    }


PUBLISHED = {
    "mvtec": _aaclip(0.9188, 0.4527, 0.9047, 0.9539),
    "btad": _aaclip(0.9701, 0.5280, 0.9432, 0.9674),
    "mpdd": _aaclip(0.9662, 0.2681, 0.7746, 0.8058),
    "brain": _aaclip(0.9572, 0.4491, 0.7926, 0.9441),
    "liver": _aaclip(0.9792, 0.1287, 0.6878, 0.5772),
    "retina": _aaclip(0.9531, 0.5684, 0.8182, 0.8180),
    "clinicdb": _aaclip(0.8955, 0.5263, None, None),
    "colondb": _aaclip(0.8359, 0.3321, None, None),
    "kvasir": _aaclip(0.8714, 0.5577, None, None),
    "cvc300": _aaclip(0.9684, 0.5373, None, None),
}
"""Means over classes that AA-CLIP's authors logged for their model trained on VisA, epoch 15 of 20
(results/test.log of github.com/Mwxinnn/AA-CLIP, commit 53db195)."""


def mean_of(rows: Sequence[Row]) -> Row:
    """Return the plain mean over classes, each metric's over the classes that have it."""
    metrics: dict[str, float | None] = {}
    for name in METRICS:
        values = [value for row in rows if (value := row.metrics[name]) is not None]
        metrics[name] = sum(values) / len(values) if values else None
    images, anomalous = sum(row.images for row in rows), sum(row.anomalous for row in rows)
    return Row("mean", images, anomalous, metrics)


def as_text(rows: Sequence[Row], published: dict[str, float | None] | None) -> str:
    """Lay the table out for a terminal, in percent, the mean and published numbers last."""
    lines = [["class", "images", "anomalous", *_HEADINGS]]
    for row in [*rows, mean_of(rows)]:
        lines.append([row.name, str(row.images), str(row.anomalous), *_percents(row.metrics)])
    if published:
        lines.append(["AA-CLIP published", "", "", *_percents(published)])
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
