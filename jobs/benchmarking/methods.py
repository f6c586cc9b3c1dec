"""The methods that can be measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jobs.benchmarking import aaclip, adaclip
from jobs.benchmarking.differences import Difference
from jobs.benchmarking.pictures import Picture
from zsad import official_aaclip, official_adaclip
from zsad.backbone import Backbone, BackboneConfig


class Method(NamedTuple):
    """A detector with random weights, and what it is compared with."""

    runs_on: Callable[[], BackboneConfig]
    """Returns the CLIP of its authors."""
    build: Callable[[Backbone], Any]
    """Returns the detector."""
    plain: Callable[[Any], Callable[[np.ndarray, str], object]]
    """Takes the detector; returns what scores one picture, uint8 (H, W, 3), of a class."""
    differences: Callable[[Any, Sequence[Picture]], list[Difference]]
    """Takes the detector and pictures to compare both on."""


METHODS = {
    "aaclip": Method(
        runs_on=official_aaclip.used,
        build=aaclip.random_detector,
        plain=aaclip.plain_of,
        differences=aaclip.differences_of,
    ),
    "adaclip": Method(
        runs_on=official_adaclip.used,
        build=adaclip.random_detector,
        plain=adaclip.plain_of,
        differences=adaclip.differences_of,
    ),
}
