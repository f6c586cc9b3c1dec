"""How the methods' authors evaluated, and what they found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zsad.detectors import Domain

Means = dict[str, float | None]
"""A metric's name (`jobs.evaluation.table.METRICS`) → its mean over the classes, a fraction."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a detector said of one image."""

    score: float
    """By the checkpoint's constants."""
    image: float
    """The method's own view of the whole image."""
    lowest: float
    """Of the anomaly map."""
    highest: float


class Published(NamedTuple):
    """One method's evaluation."""

    scores: Callable[[Sequence[Judged], Domain], list[float]]
    """All images of a class → their scores."""
    masks_by_area: bool
    """How masks are brought to the model's size; see `zsad.preprocess.squash_mask`."""
    title: str
    means: dict[str, Means]
    """By benchmark."""


def _aaclip_scores(judged: Sequence[Judged], domain: Domain) -> list[float]:
    """Return image scores by AA-CLIP's own evaluation.

    Maps and image scores are moved to 0…1 by the lowest and highest value over all images of the
    class; a medical image has the highest value of its map, a factory image the mean of that and
    its image score (github.com/Mwxinnn/AA-CLIP, commit 53db195, `metrics_eval`).
    """
    lowest = min(image.lowest for image in judged)
    peaks = _spread([image.highest for image in judged], lowest)
    if domain is Domain.MEDICAL:
        return peaks
    images = [image.image for image in judged]
    return [(p + i) / 2 for p, i in zip(peaks, _spread(images, min(images)), strict=True)]


def _spread(values: list[float], low: float) -> list[float]:
    """Move low…max to 0…1; where all values are equal they say nothing, and become 0."""
    reach = max(values) - low
    return [(value - low) / reach if reach else 0.0 for value in values]


def _adaclip_scores(judged: Sequence[Judged], _: Domain) -> list[float]:
    """Return image scores by AdaCLIP's own evaluation, in which maps have no part."""
    return [image.image for image in judged]


def _aaclip(
    pixel_auroc: float, pixel_ap: float, image_auroc: float | None, image_ap: float | None
) -> Means:
    return {
        "image_auroc": image_auroc,
        "image_ap": image_ap,
        "pixel_auroc": pixel_auroc,
        "pixel_ap": pixel_ap,
    }


def _adaclip(
    image: tuple[float | None, float | None, float | None],
    pixel: tuple[float | None, float | None, float | None],
) -> Means:
    """Name AUROC, AP and F1 of images, and AUROC, AUPRO and F1 of pixels."""
    names = (
        "image_auroc",
        "image_ap",
        "image_f1_max",
        "pixel_auroc",
        "pixel_aupro",
        "pixel_f1_max",
    )
    return dict(zip(names, (*image, *pixel), strict=True))


_NONE = (None, None, None)

PUBLISHED = {
    "aaclip": Published(
        scores=_aaclip_scores,
        masks_by_area=False,
        # Logged by the authors for their model trained on VisA, epoch 15 of 20
        # (results/test.log of github.com/Mwxinnn/AA-CLIP, commit 53db195).
        title="AA-CLIP published",
        means={
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
        },
    ),
    "adaclip": Published(
        scores=_adaclip_scores,
        masks_by_area=True,
        # Measured by others for their comparison: table 1 of Crane (arXiv 2504.11055).
        title="AdaCLIP, by Crane's authors",
        means={
            "mvtec": _adaclip((0.892, 0.957, 0.906), (0.887, 0.378, 0.434)),
            "visa": _adaclip((0.858, 0.790, 0.831), (0.955, 0.729, 0.377)),
            "mpdd": _adaclip((0.760, 0.802, 0.825), (0.961, 0.628, 0.349)),
            "btad": _adaclip((0.886, 0.938, 0.882), (0.921, 0.203, 0.517)),
            "ksdd": _adaclip((0.971, None, None), (0.977, None, None)),
            "dagm": _adaclip((0.991, None, None), (0.915, None, None)),
            "dtd": _adaclip((0.955, None, None), (0.979, None, None)),
            "headct": _adaclip((0.918, None, None), _NONE),
            "brainmri": _adaclip((0.935, None, None), _NONE),
            "br35h": _adaclip((0.923, None, None), _NONE),
            "isic": _adaclip(_NONE, (0.903, None, None)),
            "colondb": _adaclip(_NONE, (0.826, None, None)),
            "clinicdb": _adaclip(_NONE, (0.828, None, None)),
            "tn3k": _adaclip(_NONE, (0.768, None, None)),
        },
    ),
}
"""By method; means over classes."""


def benchmarks() -> list[str]:
    """Return the benchmarks that any method has published numbers of."""
    return sorted({name for published in PUBLISHED.values() for name in published.means})
