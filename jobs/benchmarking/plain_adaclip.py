"""AdaCLIP as it is published, one picture at a time: what our detector is measured against.

Computes what the official code (github.com/caoyunkang/AdaCLIP, commit e27ee32) computes, in
float32, with open_clip's modules as they are. Nothing is left out that changes no result, shared
between sentences, kept from picture to picture, or computed for several pictures at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from jobs.errors import ConfigError
from zsad.backbone import Backbone, StateDict
from zsad.detectors.adaclip import AdaClipConfig
from zsad.preprocess import squash
from zsad.prompts import ADACLIP_PROMPTS

FUSED_WEIGHT = 0.2
PATCHES_PER_CLUSTER = 5
PUBLISHED_RUNS = 1
"""Starts of k-means: what scikit-learn makes of the official `n_init="auto"`."""


class PlainScores(NamedTuple):
    """What AdaCLIP says of one picture."""

    map: np.ndarray
    """float32 (R, R), after smoothing."""
    score: float
    score_without_fusion: float
    """As if the class feature alone had been compared."""


class PlainAdaClip:
    """AdaCLIP with static and dynamic prompts in both towers, the published combination."""

    def __init__(
        self,
        backbone: Backbone,
        tensors: StateDict,
        config: AdaClipConfig,
        *,
        kmeans_runs: int = PUBLISHED_RUNS,
    ) -> None:
        """Take over the weights of a detector, on the device where they are.

        Args:
            backbone: CLIP.
            tensors: the method's own, by the detector's names.
            config: must have prompts of both types in both branches, and the fusion.
            kmeans_runs: starts of k-means.

        Raises:
            ConfigError: scikit-learn is not installed.
            ValueError: another combination was configured.
        """
        try:
            from sklearn.cluster import KMeans  # noqa: PLC0415  # only tests and this need it
        except ImportError as error:
            raise ConfigError(
                "the plain AdaCLIP needs scikit-learn: pip install 'scikit-learn>=1.6'"
            ) from error
        combination = (config.prompt_type, config.prompt_branch, config.hsf)
        if combination != ("SD", "VL", True):
            raise ValueError(f"(prompt_type, prompt_branch, hsf) must be published: {combination}")
        self.backbone, self.clip, self.tensors = backbone, backbone.clip, tensors
        self.config = config
        self.kmeans: Any = KMeans(config.clusters, n_init=kmeans_runs, random_state=0)

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray, class_name: str) -> PlainScores:
        """Score a picture, uint8 (H, W, 3)."""
        squashed = torch.tensor(squash(picture, self.backbone.config.image_size))
        pixels = self.backbone.normalise(squashed[None].to(self.clip.positional_embedding.device))
        plain = self.clip.visual(pixels)[0]
        length = self.config.prompt_length
        for_vision, for_text = (
            torch.stack([self._linear(f"{name}.head.{i}", plain) for i in range(length)])
            for name in ("dynamic_visual_prompt_generator", "dynamic_text_prompt_generator")
        )
        feature, levels = self.see(pixels, for_vision)
        anchors = self.read(class_name, for_text)
        logits = 100 * levels @ anchors  # (levels, h·w, 2)
        fused = FUSED_WEIGHT * self.fuse(levels, logits) + (1 - FUSED_WEIGHT) * feature
        return PlainScores(
            map=self.draw(logits),
            score=score_of(F.normalize(fused, dim=0), anchors),
            score_without_fusion=score_of(feature, anchors),
        )

    def see(self, pixels: Tensor, dynamic: Tensor) -> tuple[Tensor, Tensor]:
        """Run the vision tower with prompts.

        Args:
            pixels: (1, 3, R, R), normalised.
            dynamic: prompts (length, vision width).

        Returns:
            The class feature (D,), and the patches of the levels (levels, h·w, D), unit length.
        """
        visual, length = self.clip.visual, self.config.prompt_length
        x = self.backbone.embed_patches(pixels)
        tapped = []
        for number, block in enumerate(visual.transformer.resblocks):
            if number < self.config.prompt_depth:
                static = self.tensors[f"visual_prompter.static_prompts.{number}"]
                kept = x if number == 0 else x[:, :-length]
                x = torch.cat([kept, (static + dynamic)[None]], dim=1)
            x = block(x)
            if number + 1 in self.config.levels:
                tapped.append(x[0, 1:-length])
        levels = [self._linear(f"patch_token_layer.head.{i}", t) for i, t in enumerate(tapped)]
        feature = self._linear("cls_token_layer.head.0", visual.ln_post(x[0, 0]) @ visual.proj)
        return F.normalize(feature, dim=0), F.normalize(torch.stack(levels), dim=-1)

    def read(self, class_name: str, dynamic: Tensor) -> Tensor:
        """Return the anchors (D, 2) of a class, with prompts (length, text width)."""
        means = []
        for sentences in ADACLIP_PROMPTS.sentences(class_name.replace("-", " ")):
            ids = self.backbone.tokenize(sentences).to(dynamic.device)
            features = F.normalize(self._encode(ids, dynamic), dim=-1)
            means.append(F.normalize(features.mean(dim=0), dim=0))
        return torch.stack(means, dim=1)

    def _encode(self, ids: Tensor, dynamic: Tensor) -> Tensor:
        """Run the text tower with prompts: ids (P, context) → features (P, D), any length."""
        clip, length = self.clip, self.config.prompt_length
        x = self.backbone.embed_tokens(ids)
        for number, block in enumerate(clip.transformer.resblocks):
            if 0 < number < self.config.prompt_depth:
                static = self.tensors[f"text_prompter.static_prompts.{number}"]
                prompts = (static + dynamic).expand(len(ids), -1, -1)
                x = torch.cat([x[:, :1], prompts, x[:, 1 + length :]], dim=1)
            x = block(x, attn_mask=clip.attn_mask)
        ends = ids.argmax(dim=-1)
        features: Tensor = clip.ln_final(x)[torch.arange(len(ids)), ends] @ clip.text_projection
        return features

    def fuse(self, levels: Tensor, logits: Tensor) -> Tensor:
        """Return the middle of the clusters of the most anomalous patches, (D,), unit length.

        Args:
            levels: patches (levels, h·w, D).
            logits: theirs, (levels, h·w, 2).
        """
        likely = logits.mean(dim=0).softmax(dim=-1)[:, 1]
        count = min(len(likely), PATCHES_PER_CLUSTER * self.config.clusters)
        chosen = levels[:, likely.topk(count).indices]
        labels = self.kmeans.fit_predict(torch.cat(list(chosen), dim=-1).cpu().numpy())
        members = (torch.from_numpy(labels == n) for n in range(self.config.clusters))
        centres = [chosen[:, those.to(chosen.device)].mean(dim=(0, 1)) for those in members]
        return F.normalize(torch.stack(centres).mean(dim=0), dim=0)

    def draw(self, logits: Tensor) -> np.ndarray:
        """Turn logits (levels, h·w, 2) into a map (R, R)."""
        side = self.backbone.config.image_size
        cells = logits.transpose(1, 2).unflatten(2, self.backbone.grid)
        pixels = F.interpolate(cells, size=(side, side), mode="bilinear", align_corners=True)
        normal, anomalous = pixels.mean(dim=0).softmax(dim=0)
        likely = ((anomalous + 1 - normal) / 2).cpu().numpy()
        smooth: np.ndarray = gaussian_filter(likely, sigma=self.config.blur_sigma)
        return smooth

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])


def score_of(feature: Tensor, anchors: Tensor) -> float:
    """Return how likely a picture's feature (D,) is anomalous, by its anchors (D, 2)."""
    return float((100 * feature @ anchors).softmax(dim=0)[1])
