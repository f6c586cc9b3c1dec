"""Models of a detector that is to stay as it is."""

from __future__ import annotations

import copy
from typing import Any

import torch

from jobs.model import Model


def model_of(detector: Any, precision: str) -> Model:
    """Return a model with a copy of a detector: a device wants weights laid out in its own way.

    Args:
        detector: fulfils `zsad.detectors.Detector`, and has a `zsad.backbone.Backbone`.
        precision: see `Model`.
    """
    tokenizer = detector.backbone.tokenizer  # a hundred thousand entries that nobody changes
    own = copy.deepcopy(detector, {id(tokenizer): tokenizer})
    return Model(own, precision=precision, threads=torch.get_num_threads())
