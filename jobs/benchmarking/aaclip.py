"""AA-CLIP to be measured: our detector, and the plain implementation with the same weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jobs.benchmarking.differences import Difference, find_difference
from jobs.benchmarking.models import model_of
from jobs.benchmarking.pictures import Picture
from jobs.benchmarking.plain_aaclip import PlainAAClip
from zsad.backbone import Backbone
from zsad.detectors.aaclip import AAClip, AAClipConfig
from zsad.detectors.detector import Domain

ALLOWED_OF_MAPS, ALLOWED_OF_SCORES = 2e-3, 1e-5
"""Maps are sums over levels of cosines times 100, and scores cosines."""


def random_detector(backbone: Backbone) -> AAClip:
    """Return the detector that training would start from.

    Raises:
        ValueError: the method cannot work on this backbone.
    """
    return AAClip(backbone, AAClipConfig()).eval().requires_grad_(False)


def plain_of(detector: AAClip) -> PlainAAClip:
    """Return the plain implementation, with the detector's weights and on its device."""
    return PlainAAClip(detector.backbone, detector.state_dict(), detector.config)


def differences_of(detector: AAClip, pictures: Sequence[Picture]) -> list[Difference]:
    """Compare maps and image scores of pictures in float32."""
    plain = plain_of(detector)
    expected = [plain(picture.pixels, picture.class_name) for picture in pictures]
    model = model_of(detector, "fp32")
    seen = model.score([p.pixels for p in pictures], [p.class_name for p in pictures])
    maps = detector.render(seen.maps, (model.side, model.side), Domain.INDUSTRIAL).numpy()
    image = [plain_scores.image for plain_scores in expected]
    return [
        find_difference("map", maps, np.stack([e.map for e in expected]), allowed=ALLOWED_OF_MAPS),
        find_difference("image", seen.image.numpy(), image, allowed=ALLOWED_OF_SCORES),
    ]
