"""Training recipes: one method a file, and the registry that a job chooses from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from zsad.backbone import BackboneConfig
from zsad.training import aaclip, adaclip
from zsad.training.stage import Stage, TrainingBatch

__all__ = ["TRAINERS", "Stage", "Trainer", "TrainingBatch"]


class Trainer(NamedTuple):
    """How a method's detector is trained."""

    read_recipe: Callable[[Mapping[str, Any]], Any]
    """Settings, as YAML gives them → the method's recipe; `dataclasses.asdict` turns it back."""
    method_config: Callable[[BackboneConfig, Mapping[str, Any]], Any]
    """The CLIP, and settings → the detector's configuration; what is not set follows from CLIP."""
    stages: Callable[[Any, Any], list[Stage]]
    """The detector and the recipe → what to run, one after the other."""
    position_resize: str
    """How CLIP's positional grid is brought to another size; see `BackboneConfig`."""


TRAINERS = {
    "aaclip": Trainer(
        read_recipe=aaclip.AAClipRecipe.from_dict,
        method_config=aaclip.config_for,
        stages=aaclip.training_stages,
        position_resize="bicubic_antialias",
    ),
    "adaclip": Trainer(
        read_recipe=adaclip.AdaClipRecipe.from_dict,
        method_config=adaclip.config_for,
        stages=adaclip.training_stages,
        position_resize="bicubic",
    ),
}
