"""Detectors with random weights: as fast as trained ones, and nothing has to be downloaded."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from jobs.benchmarking.config import RandomWeights
from jobs.benchmarking.methods import METHODS
from jobs.errors import ConfigError
from zsad.backbone import Backbone
from zsad.checkpoints import Checkpoint, save_checkpoint

SEED = 0


def random_detector(weights: RandomWeights) -> Any:
    """Return a detector that is the same every time.

    Raises:
        ConfigError: the method cannot run so.
    """
    method = METHODS[weights.method]
    print("making a CLIP of random weights", flush=True)
    torch.manual_seed(SEED)
    try:
        config = replace(
            method.runs_on(), architecture=weights.architecture, image_size=weights.image_size
        )
        return method.build(Backbone(config))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def save_random_weights(path: Path, weights: RandomWeights) -> None:
    """Write the detector of `random_detector` as a checkpoint, with its CLIP inside.

    Raises:
        ConfigError: the method cannot run so.
    """
    detector = random_detector(weights)
    own = {
        name: tensor
        for name, tensor in detector.state_dict().items()
        if not name.startswith("backbone.")
    }
    checkpoint = Checkpoint(
        method=weights.method,
        backbone=detector.backbone.config,
        method_config=asdict(detector.config),
        tensors=own,
        clip=detector.backbone.clip.state_dict(),
        note="random weights: for measuring speed alone",
    )
    save_checkpoint(path, checkpoint)
