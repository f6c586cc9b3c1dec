"""AA-CLIP's two training stages (arXiv 2503.06661): text anchors first, then visual adapters.

Stage 1 moves the normal and the anomalous anchors of a class apart, seen from the patch features
of a frozen CLIP whose attention is changed so that patches keep to what they show. Stage 2 holds
the anchors still and takes the patch features of four levels to them.

The official code (github.com/Mwxinnn/AA-CLIP) does not do in stage 1 what the paper says. Both can
be run; `Kind` tells the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, MultiStepLR

from zsad.backbone import BackboneConfig
from zsad.detectors.aaclip import AAClip, AAClipConfig
from zsad.detectors.config import quarters
from zsad.losses import SegmentationTerms, orthogonality_loss, segmentation_terms
from zsad.maps import level_probabilities
from zsad.training.augment import Augmentation
from zsad.training.recipe import Recipe, check_above_zero, check_betas
from zsad.training.stage import Stage, TrainingBatch, train_only
from zsad.trunk import attend, full_precision, run_blocks


class Kind(StrEnum):
    """Whose stage 1 to run. Stage 2 is the same."""

    OFFICIAL = "official"
    """The published code: changed attention mixes the pictures of a batch, token by token, and not
    the tokens of a picture; only the last level's loss counts; CLIP's image embedding is added to
    every patch instead of being classified."""
    PAPER = "paper"
    """The published text: changed attention within a picture, all levels' losses, and CLIP's image
    embedding classified (eq. 4, by the cross-entropy of stage 2); each class's anchors are to be
    orthogonal, not their batch on average."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AAClipRecipe(Recipe):
    """What decides the course of a training; defaults are the official code's."""

    kind: Kind = Kind.OFFICIAL
    text_epochs: int = 5
    image_epochs: int = 20
    text_batch_size: int = 16
    image_batch_size: int = 2
    text_lr: float = 1e-5
    image_lr: float = 5e-4
    betas: tuple[float, float] = (0.5, 0.999)
    eps: float = 1e-8
    """Of both Adam optimisers, as `betas`."""
    milestones: tuple[int, ...] = (16000, 32000)
    """Steps of stage 2 after which its rate is halved."""
    orthogonality_weight: float = 0.1
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Of both stages; colours are varied in stage 2 alone."""
    surgery_blocks: int | None = None
    """How many vision blocks, from the last, get the changed attention of stage 1. Default: all
    but the first 5 of 24, or as great a share."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", Kind(self.kind))
        check_above_zero(self, "text_epochs", "image_epochs", "text_batch_size", "image_batch_size")
        check_above_zero(self, "text_lr", "image_lr", "eps")
        check_betas(self.betas)
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must ascend, are {self.milestones}")
        if self.orthogonality_weight < 0:
            raise ValueError(f"orthogonality_weight is below 0: {self.orthogonality_weight}")
        if self.surgery_blocks is not None and self.surgery_blocks < 0:
            raise ValueError(f"surgery_blocks is below 0: {self.surgery_blocks}")


def config_for(backbone: BackboneConfig, settings: Mapping[str, Any]) -> AAClipConfig:
    """Return the configuration of a detector to be trained.

    Args:
        backbone: its CLIP. Levels are at the quarters of its vision tower, adapters in the first
            quarter of both, as they are of ViT-L/14's 24 and 12 blocks.
        settings: fields of `AAClipConfig` that shall have other values.
    """
    model = backbone.model_config()
    blocks, text_blocks = model["vision_cfg"]["layers"], model["text_cfg"]["layers"]
    levels = quarters(blocks)
    defaults = {
        "levels": levels,
        "image_adapt_until": levels[0],
        "text_adapt_until": max(1, round(text_blocks / 4)),
    }
    return AAClipConfig.from_dict(defaults | dict(settings))


def training_stages(detector: AAClip, recipe: AAClipRecipe) -> list[Stage]:
    """Return both stages, to be run in this order on one detector."""
    return [TextStage(detector, recipe), ImageStage(detector, recipe)]


class FrozenFeatures(NamedTuple):
    """What stage 1 sees of a batch's pictures."""

    patches: Tensor
    """(B, levels, h·w, D)."""
    image: Tensor
    """(B, D), unit length: plain CLIP's embedding."""


class TextStage(Stage):
    """Stage 1: the text adapter learns to tell normal from anomalous patches of a frozen CLIP."""

    def __init__(self, detector: AAClip, recipe: AAClipRecipe) -> None:
        """Train `detector.text_adapter`.

        Raises:
            ValueError: the recipe changes more blocks than there are.
        """
        super().__init__()
        self.name, self.augmentation = "text_adapter", replace(recipe.augmentation, jitter=0.0)
        self.epochs, self.batch_size = recipe.text_epochs, recipe.text_batch_size
        self.detector, self.recipe, self.trained = detector, recipe, detector.text_adapter
        blocks = len(detector.backbone.clip.visual.transformer.resblocks)
        changed = recipe.surgery_blocks
        changed = blocks - round(blocks * 5 / 24) if changed is None else changed
        if changed > blocks:
            raise ValueError(f"surgery_blocks is {changed}, but CLIP has {blocks} vision blocks")
        self.untouched_blocks = blocks - changed

    def prepare(self, class_names: Sequence[str]) -> None:
        """Freeze all but the text adapter."""
        train_only(self.detector, self.trained)

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the loss and its terms."""
        official = self.recipe.kind is Kind.OFFICIAL
        names = sorted(set(batch.class_names))
        each = self.detector.encode_text(names)
        anchors = each[[names.index(name) for name in batch.class_names]].float()
        seen = self.see(batch.images)
        with full_precision(batch.images):
            scored = seen.patches[:, -1:] if official else seen.patches
            alignment = level_terms(self.detector, scored, anchors, batch.masks)
            overlap = orthogonality_loss(anchors, squared_first=not official)
            terms = {**alignment._asdict(), "orthogonality": overlap}
            loss = alignment.total + self.recipe.orthogonality_weight * overlap
            if not official:
                terms["cross_entropy"] = classify(seen.image, anchors, batch.labels)
                loss = loss + terms["cross_entropy"]
        return {"loss": loss, **terms}

    @torch.no_grad()
    def see(self, images: Tensor) -> FrozenFeatures:
        """Return what the frozen CLIP makes of images (B, 3, R, R)."""
        official = self.recipe.kind is Kind.OFFICIAL
        tapped = [tokens[:, 1:] for tokens in self.surgery_tokens(images)]
        patches = F.normalize(self._project(torch.stack(tapped, dim=1)), dim=-1)
        image = F.normalize(self.embed_images(images), dim=-1)
        if official:
            patches = patches + image[:, None, None]
        return FrozenFeatures(patches=patches, image=image)

    def surgery_tokens(self, images: Tensor) -> list[Tensor]:
        """Return each level's tokens (B, 1 + h·w, W) of CLIP with changed attention."""
        backbone = self.detector.backbone
        _, tapped = run_blocks(
            backbone.clip.visual.transformer.resblocks,
            backbone.embed_patches(images),
            attention=self._changed_attention,
            taps=self.detector.config.levels,
        )
        return tapped

    def embed_images(self, images: Tensor) -> Tensor:
        """Return plain CLIP's embeddings (B, D), any length."""
        backbone = self.detector.backbone
        blocks = backbone.clip.visual.transformer.resblocks
        last, _ = run_blocks(blocks, backbone.embed_patches(images))
        return self._project(last[:, 0])

    def _changed_attention(self, number: int, attention: nn.Module, x: Tensor) -> Tensor:
        if number <= self.untouched_blocks:
            return attend(attention, x)
        if self.recipe.kind is Kind.OFFICIAL:  # whose class takes (N, B, W) for (B, N, W)
            return attend(attention, x.transpose(0, 1), by_values=True).transpose(0, 1)
        return attend(attention, x, by_values=True)

    def _project(self, tokens: Tensor) -> Tensor:
        visual = self.detector.backbone.clip.visual
        with full_precision(tokens):
            return cast(Tensor, visual.ln_post(tokens) @ visual.proj)

    def optimiser(self) -> Optimizer:
        """Return Adam."""
        return _adam(self.trained, self.recipe, self.recipe.text_lr)

    def scheduler(self, optimiser: Optimizer) -> LRScheduler:
        """Return a constant rate."""
        return ConstantLR(optimiser, factor=1.0)


class ImageStage(Stage):
    """Stage 2: the image adapter learns to take patches to the anchors that stage 1 left."""

    anchors: Tensor

    def __init__(self, detector: AAClip, recipe: AAClipRecipe) -> None:
        """Train `detector.image_adapter`."""
        super().__init__()
        self.name, self.augmentation = "image_adapter", recipe.augmentation
        self.epochs, self.batch_size = recipe.image_epochs, recipe.image_batch_size
        self.detector, self.recipe, self.trained = detector, recipe, detector.image_adapter

    def prepare(self, class_names: Sequence[str]) -> None:
        """Freeze all but the image adapter, and compute the anchors of all classes."""
        train_only(self.detector, self.trained)
        self.rows = {name: row for row, name in enumerate(dict.fromkeys(class_names))}
        with torch.no_grad():
            anchors = self.detector.encode_text(list(self.rows)).float()
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the loss and its terms."""
        anchors = self.anchors[[self.rows[name] for name in batch.class_names]]
        features, detection = self.detector.encode_images(batch.images)
        with full_precision(batch.images):
            alignment = level_terms(self.detector, features.float(), anchors, batch.masks)
            entropy = classify(detection.float(), anchors, batch.labels)
        loss = alignment.total + entropy
        return {"loss": loss, **alignment._asdict(), "cross_entropy": entropy}

    def optimiser(self) -> Optimizer:
        """Return Adam."""
        return _adam(self.trained, self.recipe, self.recipe.image_lr)

    def scheduler(self, optimiser: Optimizer) -> LRScheduler:
        """Return a rate that is halved at each milestone."""
        return MultiStepLR(optimiser, milestones=list(self.recipe.milestones), gamma=0.5)


def level_terms(
    detector: AAClip, features: Tensor, anchors: Tensor, masks: Tensor
) -> SegmentationTerms:
    """Compare the maps of all levels, before smoothing, with the truth; sums over the levels.

    Args:
        detector: knows the token grid.
        features: (B, levels, h·w, D).
        anchors: (B, D, 2).
        masks: (B, R, R), 0 or 1.
    """
    backbone = detector.backbone
    maps = level_probabilities(features, anchors, backbone.grid, backbone.config.image_size)
    each = [segmentation_terms(level, masks) for level in maps.unbind(dim=1)]
    return SegmentationTerms(*(torch.stack(terms).sum() for terms in zip(*each, strict=True)))


def classify(images: Tensor, anchors: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of cosines, without a temperature: (B, D), (B, D, 2), (B,)."""
    return F.cross_entropy(torch.einsum("bd,bdk->bk", images, anchors), labels)


def _adam(trained: nn.Module, recipe: AAClipRecipe, rate: float) -> Adam:
    return Adam(trained.parameters(), lr=rate, betas=recipe.betas, eps=recipe.eps)
