"""A golden case of AA-CLIP: its detector, and the official training run again by our stages."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden_cases import GoldenCase
from torch import Tensor

from zsad.checkpoints import load_checkpoint
from zsad.detectors.aaclip import AAClip, AAClipConfig
from zsad.losses import orthogonality_loss, segmentation_terms
from zsad.maps import level_probabilities
from zsad.training.aaclip import (
    AAClipRecipe,
    ImageStage,
    Kind,
    TextStage,
    classify,
)
from zsad.training.stage import Stage, TrainingBatch

Arrays = dict[str, Tensor]


class AAClipCase(GoldenCase):
    """A case, its detector, and the intermediate results that several tests look at."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.trained = np.load(folder / "train_expected.npz")
        ours = self.config["aaclip"]
        self.size = ours["img_size"]
        self.detector = AAClip(
            self.backbone(image_size=self.size),
            AAClipConfig(
                levels=tuple(ours["levels"]),
                image_adapt_until=ours["image_adapt_until"],
                text_adapt_until=ours["text_adapt_until"],
                image_adapt_weight=ours["image_adapt_weight"],
                text_adapt_weight=ours["text_adapt_weight"],
                relu=ours["relu"],
            ),
        ).eval()
        self.stored = load_checkpoint(folder).tensors
        missing, left_over = self.detector.load_state_dict(self.stored, strict=False)
        assert not left_over
        assert all(name.startswith("backbone.") for name in missing)
        self.real_names = [entry["real_name"] for entry in self.config["classes"]]
        self.images_u8 = self.pixels(self.size)
        with torch.inference_mode():
            self.anchors = self.detector.encode_text(self.real_names)
            self.features, self.detection = self.detector.patch_features(self.images_u8)
            self.scores = self.detector(self.images_u8, self.anchors[self.class_of_row])

    def recipe(self) -> AAClipRecipe:
        """Return the official recipe with the case's own rates."""
        ours = self.config["aaclip"]
        return AAClipRecipe(
            kind=Kind.OFFICIAL,
            text_lr=ours["text_lr"],
            image_lr=ours["image_lr"],
            betas=tuple(ours["adam_betas"]),
            eps=ours["adam_eps"],
            orthogonality_weight=ours["text_norm_weight"],
            surgery_blocks=max(0, ours["surgery_until_layer"] - 1),  # README, quirk 21
        )

    def batches(self) -> list[TrainingBatch]:
        """Return the steps of training, the same for both stages."""
        images = self.detector.backbone.normalise(self.images_u8)
        masks, labels = self.masks(self.size), self.labels()
        return [
            TrainingBatch(
                images=images[rows],
                masks=masks[rows],
                labels=labels[rows],
                class_names=[self.real_names[self.class_of_row[row]] for row in rows],
            )
            for rows in self.trained["batches"].tolist()
        ]

    def train(self) -> Arrays:
        """Train as the official code did; return our arrays under the names of the golden ones."""
        detector, batches = copy.deepcopy(self.detector), self.batches()
        text = TextStage(detector, self.recipe())
        found = run_stage(text, batches, self.real_names, "s1", look_at_text_stage)
        alone = text.surgery_tokens(batches[0].images[:1])
        found["surgery_tokens_batch1"] = torch.stack(alone)[:, 0]
        image = ImageStage(detector, self.recipe())
        found |= run_stage(image, batches, self.real_names, "s2", look_at_image_stage)
        found["s2_text_emb"] = image.anchors[[image.rows[name] for name in self.real_names]]
        return {name: array.detach() for name, array in found.items()}


def run_stage(
    stage: Stage,
    batches: list[TrainingBatch],
    class_names: list[str],
    prefix: str,
    look: Callable[[Any, TrainingBatch], tuple[Arrays, Arrays]],
) -> Arrays:
    """Train a step a batch; `look` gives what to keep of every step, and of the first alone."""
    stage.prepare(class_names)
    optimiser = stage.optimiser()
    scheduler = stage.scheduler(optimiser)
    steps: dict[str, list[Tensor]] = defaultdict(list)
    found: Arrays = {}
    for number, batch in enumerate(batches):
        with torch.no_grad():
            every, first = look(stage, batch)
        optimiser.zero_grad()
        loss = stage(batch)["loss"]
        loss.backward()
        for name, value in {"loss": loss, **every}.items():
            steps[f"{prefix}_{name}"].append(value)
        if number == 0:
            found |= {f"{prefix}_{name}": value for name, value in first.items()}
            for name, weight in stage.trained.named_parameters():
                found[f"{prefix}_grad.{name}"] = weight.grad.clone()
        optimiser.step()
        scheduler.step()
    for name, weight in stage.trained.named_parameters():
        found[f"{prefix}_after.{name}"] = weight
    return found | {name: torch.stack(values) for name, values in steps.items()}


def look_at_text_stage(stage: TextStage, batch: TrainingBatch) -> tuple[Arrays, Arrays]:
    anchors = stage.detector.encode_text(batch.class_names)
    seen = stage.see(batch.images)
    every, last = maps_and_terms(stage.detector, seen.patches, anchors, batch.masks)
    every["text_emb"] = anchors
    every["orthogonal"] = orthogonality_loss(anchors, squared_first=False)
    return every, {
        "patch_prob_last": last,
        "surgery_tokens": torch.stack(stage.surgery_tokens(batch.images)),
        "cls_embed": stage.embed_images(batch.images),
        "patch_features": seen.patches.transpose(0, 1),
    }


def look_at_image_stage(stage: ImageStage, batch: TrainingBatch) -> tuple[Arrays, Arrays]:
    anchors = stage.anchors[[stage.rows[name] for name in batch.class_names]]
    features, detection = stage.detector.encode_images(batch.images)
    every, last = maps_and_terms(stage.detector, features, anchors, batch.masks)
    every["cls_logits"] = torch.einsum("bd,bdk->bk", detection, anchors)
    every["cross_entropy"] = classify(detection, anchors, batch.labels)
    every["label"] = batch.labels
    return every, {"patch_prob_last": last}


def maps_and_terms(
    detector: AAClip, features: Tensor, anchors: Tensor, masks: Tensor
) -> tuple[Arrays, Tensor]:
    """Return each level's terms (levels,) and the last level's probabilities (B, 2, R, R)."""
    backbone = detector.backbone
    probabilities = level_probabilities(
        features, anchors, backbone.grid, backbone.config.image_size
    )
    maps = probabilities.unbind(dim=1)
    terms = [segmentation_terms(each, masks) for each in maps]
    stacked = {
        "focal": torch.stack([each.focal for each in terms]),
        "dice_normal": torch.stack([each.dice_normal for each in terms]),
        "dice_abnormal": torch.stack([each.dice_anomalous for each in terms]),
    }
    return stacked, maps[-1]
