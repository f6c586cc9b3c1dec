"""AdaCLIP's training (arXiv 2407.15795): prompts and projections learn at once, CLIP stays frozen.

What its official code (github.com/caoyunkang/AdaCLIP) does that the paper does not say is the
default: Dice overlaps are those of single rows of pixels. Three of its accidents are not repeated:
half-precision prompts, a text prompt that no block sees but the optimiser holds, and mosaics with
the label of one other picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler

from zsad.backbone import BackboneConfig
from zsad.detectors.adaclip import AdaClip, AdaClipConfig
from zsad.detectors.config import quarters
from zsad.detectors.detector import ClassText
from zsad.losses import SegmentationTerms, focal_loss, segmentation_terms
from zsad.maps import level_logits, level_probabilities, log_odds
from zsad.training.augment import Augmentation
from zsad.training.recipe import Recipe, check_above_zero, check_betas
from zsad.training.stage import Stage, TrainingBatch, train_only
from zsad.trunk import full_precision

MOSAICS = Augmentation(turn=0.0, shift=0.0, jitter=0.0, mirror=False, mosaic=0.2)
"""The official code changes pictures in no other way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaClipRecipe(Recipe):
    """What decides the course of a training; defaults are the official code's."""

    epochs: int = 5
    batch_size: int = 1
    lr: float = 0.01
    betas: tuple[float, float] = (0.5, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    """Of AdamW, as `lr`, `betas` and `eps`."""
    dice_by_row: bool = True
    """Whether each row of pixels has a Dice overlap of its own, as the official code has it at its
    batch size of 1, or each picture."""
    augmentation: Augmentation = field(default_factory=lambda: MOSAICS)

    def __post_init__(self) -> None:
        check_above_zero(self, "epochs", "batch_size", "lr", "eps")
        check_betas(self.betas)
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay is below 0: {self.weight_decay}")


def config_for(backbone: BackboneConfig, settings: Mapping[str, Any]) -> AdaClipConfig:
    """Return the configuration of a detector to be trained.

    Args:
        backbone: its CLIP. Levels are at the quarters of its vision tower.
        settings: fields of `AdaClipConfig` that shall have other values.
    """
    levels = quarters(backbone.model_config()["vision_cfg"]["layers"])
    return AdaClipConfig.from_dict({"levels": levels, **settings})


def training_stages(detector: AdaClip, recipe: AdaClipRecipe) -> list[Stage]:
    """Return the one stage."""
    return [PromptStage(detector, recipe)]


class PromptStage(Stage):
    """All that the method adds to CLIP learns."""

    masks_by_area = True

    def __init__(self, detector: AdaClip, recipe: AdaClipRecipe) -> None:
        super().__init__()
        self.name, self.augmentation = "prompts", recipe.augmentation
        self.epochs, self.batch_size = recipe.epochs, recipe.batch_size
        self.detector, self.recipe = detector, recipe
        self.trained = nn.ModuleDict(
            {name: part for name, part in detector.named_children() if name != "backbone"}
        )

    def prepare(self, class_names: Sequence[str]) -> None:
        """Freeze CLIP and what no loss depends on, and begin the sentences of all classes."""
        train_only(self.detector, self.trained)
        for unused in self._without_effect():
            unused.requires_grad_(False)
        begin = self.detector.begin if self.detector.config.prompts_text else self._constant
        with torch.no_grad():
            self.texts: dict[str, ClassText] = {name: begin(name) for name in set(class_names)}

    def _constant(self, class_name: str) -> ClassText:
        return self.detector.encode_text([class_name])[0]

    def _without_effect(self) -> list[nn.Module | nn.Parameter]:
        """Return what the forward pass never looks at: such parts have no gradient."""
        detector, config = self.detector, self.detector.config
        text = list(detector.text_prompter.static_prompts)
        visual = list(detector.visual_prompter.static_prompts)
        # The first text block sees no prompts: the first of them is there for its number only.
        found: list[nn.Module | nn.Parameter] = [*text[:1], *text[detector.text_depth :]]
        found += visual[detector.visual_depth :]
        if "D" in config.prompt_type:
            if "V" not in config.prompt_branch:
                found.append(detector.dynamic_visual_prompt_generator)
            if not config.text_sees_image:
                found.append(detector.dynamic_text_prompt_generator)
        return found

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the loss and its terms."""
        detector, backbone = self.detector, self.detector.backbone
        seen = detector.encode_images(batch.images)
        texts = [self.texts[name] for name in batch.class_names]
        anchors = detector.anchors(texts, seen.text_prompts).float()
        with full_precision(batch.images):
            odds = log_odds(level_logits(seen.patches, anchors)).mean(dim=1)
            image = detector.image_logits(seen, odds, anchors).softmax(dim=-1)
            size = backbone.config.image_size
            levels = level_probabilities(seen.patches, anchors, backbone.grid, size)
            each = [
                segmentation_terms(level, batch.masks, dice_by_row=self.recipe.dice_by_row)
                for level in levels.unbind(dim=1)
            ]
            terms = SegmentationTerms(*(torch.stack(t).sum() for t in zip(*each, strict=True)))
            classification = focal_loss(image, batch.labels)
        loss = classification + terms.total
        return {"loss": loss, **terms._asdict(), "classification": classification}

    def optimiser(self) -> Optimizer:
        """Return AdamW."""
        recipe = self.recipe
        learning = [weight for weight in self.trained.parameters() if weight.requires_grad]
        return AdamW(
            learning,
            lr=recipe.lr,
            betas=recipe.betas,
            eps=recipe.eps,
            weight_decay=recipe.weight_decay,
        )

    def scheduler(self, optimiser: Optimizer) -> LRScheduler:
        """Return a constant rate."""
        return ConstantLR(optimiser, factor=1.0)
