"""AdaCLIP to be measured: our detector, and the plain implementation with the same weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jobs.benchmarking.differences import Difference, find_difference
from jobs.benchmarking.models import model_of
from jobs.benchmarking.pictures import Picture
from jobs.benchmarking.plain_adaclip import PUBLISHED_RUNS, PlainAdaClip
from zsad.backbone import Backbone
from zsad.detectors.adaclip import AdaClip
from zsad.detectors.detector import Domain
from zsad.kmeans import RUNS
from zsad.training.adaclip import config_for

ALLOWED = 1e-4
"""In probabilities, of which maps and scores consist."""


def random_detector(backbone: Backbone) -> AdaClip:
    """Return the detector that training would start from.

    Raises:
        ValueError: the method cannot work on this backbone.
    """
    return AdaClip(backbone, config_for(backbone.config, {})).eval().requires_grad_(False)


def plain_of(detector: AdaClip, *, kmeans_runs: int = PUBLISHED_RUNS) -> PlainAdaClip:
    """Return the plain implementation, with the detector's weights and on its device.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    return PlainAdaClip(
        detector.backbone, detector.state_dict(), detector.config, kmeans_runs=kmeans_runs
    )


def differences_of(detector: AdaClip, pictures: Sequence[Picture]) -> list[Difference]:
    """Compare maps and scores of pictures in float32.

    The score is reported alone: it depends on k-means, where two starts that are equally good but
    for rounding lead to other clusters. Both start equally often here, and from the same numbers.
    """
    plain = plain_of(detector, kmeans_runs=RUNS)
    expected = [plain(picture.pixels, picture.class_name) for picture in pictures]
    without_fusion = copy.copy(detector)
    without_fusion.config = replace(detector.config, hsf=False)
    maps, scores = _see(detector, pictures)
    _, scores_without = _see(without_fusion, pictures)
    return [
        find_difference("map", maps, np.stack([e.map for e in expected]), allowed=ALLOWED),
        find_difference(
            "score_without_fusion",
            scores_without,
            [e.score_without_fusion for e in expected],
            allowed=ALLOWED,
        ),
        find_difference("score", scores, [e.score for e in expected], allowed=None),
    ]


def _see(detector: AdaClip, pictures: Sequence[Picture]) -> tuple[np.ndarray, np.ndarray]:
    """Return maps (B, R, R) and scores (B,), as probabilities."""
    model = model_of(detector, "fp32")
    seen = model.score([p.pixels for p in pictures], [p.class_name for p in pictures])
    maps = detector.render(seen.maps, (model.side, model.side), Domain.INDUSTRIAL)
    return maps.numpy(), seen.image.sigmoid().numpy()
