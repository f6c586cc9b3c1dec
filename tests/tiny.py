"""A detector small enough to build in a test."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from zsad.backbone import Backbone, BackboneConfig
from zsad.checkpoints import Checkpoint
from zsad.detectors.aaclip import AAClip, AAClipConfig
from zsad.detectors.adaclip import AdaClip, AdaClipConfig

TINY_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 48, "layers": 4, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 2},
}


def tiny_detector(seed: int = 0) -> AAClip:
    """Return AA-CLIP on a CLIP of a few thousand random weights: 48 px input, 6×6 tokens."""
    torch.manual_seed(seed)
    backbone = Backbone(BackboneConfig(architecture=TINY_CLIP, activation="gelu", image_size=48))
    config = AAClipConfig(levels=(2, 4), image_adapt_until=1, text_adapt_until=1)
    return AAClip(backbone, config).eval().requires_grad_(False)


def tiny_adaclip(seed: int = 0, **settings: Any) -> AdaClip:
    """Return AdaCLIP on the same CLIP."""
    torch.manual_seed(seed)
    backbone = Backbone(BackboneConfig(architecture=TINY_CLIP, activation="gelu", image_size=48))
    defaults = {"levels": (2, 4), "prompt_depth": 2, "prompt_length": 3, "clusters": 3}
    config = AdaClipConfig(**defaults | settings)
    return AdaClip(backbone, config).eval().requires_grad_(False)


def as_checkpoint(detector: AAClip | AdaClip, *, note: str | None = None) -> Checkpoint:
    """Return everything of a detector, its CLIP included, as a checkpoint."""
    state = detector.state_dict()
    return Checkpoint(
        method="adaclip" if isinstance(detector, AdaClip) else "aaclip",
        backbone=detector.backbone.config,
        method_config=asdict(detector.config),
        tensors={name: t for name, t in state.items() if not name.startswith("backbone.")},
        clip=dict(detector.backbone.clip.state_dict()),
        note=note,
    )
