"""A golden case of AdaCLIP: its detector in every variant, and the official training run again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden_cases import GoldenCase
from torch import Tensor

from zsad.checkpoints import load_checkpoint
from zsad.detectors.adaclip import AdaClip, AdaClipConfig
from zsad.kmeans import cluster
from zsad.losses import segmentation_terms
from zsad.maps import level_logits, level_probabilities, log_odds
from zsad.semantic_fusion import strongest
from zsad.training.adaclip import AdaClipRecipe, PromptStage
from zsad.training.stage import TrainingBatch

Arrays = dict[str, Tensor]
OFFICIAL_PREFIX = "clip_model."


class AdaClipCase(GoldenCase):
    """A case; what several tests look at is computed once, picture by picture."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.trained = np.load(folder / "train_expected.npz")
        variants = folder / "variants_expected.npz"
        self.variants = np.load(variants) if variants.exists() else None
        ours = self.config["adaclip"]
        self.size = ours["image_size"]
        self.clip = self.backbone(image_size=self.size)
        self.stored = dict(load_checkpoint(folder / "adaclip.pth").tensors)
        self.detector = self.variant(
            ours["prompting_type"], ours["prompting_branch"], hsf=ours["use_hsf"]
        )
        self.class_names = [row["class_name"] for row in self.rows]
        self.images_u8 = self.pixels(self.size)
        self.images = self.clip.normalise(self.images_u8)

    def how_clip_is_used(self) -> dict[str, Any]:
        return {"activation": self.config["activation"]["used"], "position_resize": "bicubic"}

    def variant(self, prompt_type: str, prompt_branch: str, *, hsf: bool = True) -> AdaClip:
        """Build a detector that takes what it needs of the stored weights."""
        ours = self.config["adaclip"]
        config = AdaClipConfig(
            levels=tuple(ours["output_layers"]),
            prompt_type=prompt_type,
            prompt_branch=prompt_branch,
            prompt_depth=ours["prompting_depth"],
            prompt_length=ours["prompting_length"],
            hsf=hsf,
            clusters=ours["k_clusters"],
            blur_sigma=ours["blur_sigma"],
        )
        detector = AdaClip(self.clip, config)
        missing, left_over = detector.load_state_dict(self.stored, strict=False)
        assert all(name.startswith("backbone.") for name in missing)
        full = (ours["prompting_type"], ours["prompting_branch"])
        assert not left_over or (prompt_type, prompt_branch) != full
        return detector.eval()

    @torch.inference_mode()
    def run(self, detector: AdaClip) -> Arrays:
        """Run every picture alone; return stacked arrays under the names of the golden ones."""
        each = [self.run_one(detector, n) for n in range(len(self.rows))]
        return {name: torch.cat([arrays[name] for arrays in each]) for name in each[0]}

    def run_one(self, detector: AdaClip, n: int) -> Arrays:
        """Run picture n alone; arrays have a first axis of 1."""
        texts = detector.encode_text([self.class_names[n]])
        image = self.images[n : n + 1]
        tokens = detector.backbone.embed_patches(image)
        dynamic = detector.dynamic_prompts(tokens)
        embedding, tapped = detector.prompted_tokens(tokens, dynamic.visual)
        seen = detector.encode_images(image)
        anchors = detector.anchors(texts, dynamic.text)
        logits = level_logits(seen.patches, anchors)
        odds = log_odds(logits).mean(dim=1)
        scores = detector(self.images_u8[n : n + 1], texts)
        pair = detector.image_logits(seen, odds, anchors)
        plain = level_logits(seen.image[:, None, None], anchors)[:, 0, 0]
        size = (self.size, self.size)
        return {
            "tokens_prompted": torch.stack(tapped, dim=1),
            "cls_prompted": embedding,
            "text_feat": anchors,
            "proj_cls": seen.image,
            "proj_patch": seen.patches,
            "logits": logits,
            "hsf_patch_score": odds.sigmoid(),
            "hsf_topk": strongest(odds, detector.config.clusters),
            "score_hsf": scores.image.sigmoid(),
            "score_nohsf": log_odds(plain).sigmoid(),
            "score_pair_hsf": pair.softmax(dim=-1),
            "map_blur": detector.render(scores.maps, size, "industrial"),
            "level_maps": level_probabilities(seen.patches, anchors, self.clip.grid, self.size),
        }

    def train(self) -> Arrays:
        """Train as the official code did; return our arrays under the names of the golden ones."""
        detector = copy.deepcopy(self.detector)
        stage = PromptStage(detector, AdaClipRecipe(lr=self.config["adaclip"]["learning_rate"]))
        stage.prepare(self.class_names)
        optimiser = stage.optimiser()
        masks, labels = self.masks(self.size, by_area=stage.masks_by_area), self.labels()
        found: Arrays = {}
        losses, chosen, labelled = [], [], []
        order = self.trained["image_order"].tolist()
        for step, n in enumerate(order, start=1):
            rows = slice(n, n + 1)
            names = [self.class_names[n]]
            batch = TrainingBatch(self.images[rows], masks[rows], labels[rows], names)
            levels, top, clusters = self._look(stage, batch)
            optimiser.zero_grad()
            terms = stage(batch)
            terms["loss"].backward()
            losses.append(torch.stack([terms["loss"], terms["classification"], *levels]).detach())
            chosen.append(top)
            labelled.append(clusters)
            if step == 1:
                for name, weight in stage.trained.named_parameters():
                    if weight.grad is not None:
                        found[f"grad1:{OFFICIAL_PREFIX}{name}"] = weight.grad.clone()
            optimiser.step()
            if step in (1, len(order)):
                for name, weight in stage.trained.named_parameters():
                    found[f"after{step}:{OFFICIAL_PREFIX}{name}"] = weight.detach().clone()
        return found | {
            "losses": torch.stack(losses),
            "hsf_topk": torch.cat(chosen),
            "hsf_labels": torch.cat(labelled),
        }

    @torch.no_grad()
    def _look(
        self, stage: PromptStage, batch: TrainingBatch
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return each level's focal, anomalous and normal Dice loss, HSF's patches and labels."""
        detector = stage.detector
        seen = detector.encode_images(batch.images)
        texts: list[Any] = [stage.texts[name] for name in batch.class_names]
        anchors = detector.anchors(texts, seen.text_prompts)
        levels = level_probabilities(seen.patches, anchors, self.clip.grid, self.size)
        terms = [
            segmentation_terms(level, batch.masks, dice_by_row=stage.recipe.dice_by_row)
            for level in levels.unbind(dim=1)
        ]
        odds = log_odds(level_logits(seen.patches, anchors)).mean(dim=1)
        flat = [t for each in terms for t in (each.focal, each.dice_anomalous, each.dice_normal)]
        top = strongest(odds, detector.config.clusters)
        return flat, top, cluster(points_at(seen.patches[0], top[0]), detector.config.clusters)


def points_at(patches: Tensor, places: Tensor) -> Tensor:
    """Return patches of one picture, all levels side by side: (levels, N, D) → (1, m, levels·D)."""
    return patches[:, places].transpose(0, 1).flatten(1)[None]
