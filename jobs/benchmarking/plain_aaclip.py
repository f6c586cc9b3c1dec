"""AA-CLIP as it is published, one picture at a time: what our detector is measured against.

Computes what the official code (github.com/Mwxinnn/AA-CLIP, commit 53db195) computes, in float32,
with open_clip's modules. As there, the attention module is called in its usual way, which returns
its weights too, and the sentences of a class are read once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from zsad.backbone import Backbone, StateDict
from zsad.detectors.aaclip import AAClipConfig
from zsad.preprocess import squash
from zsad.prompts import AACLIP_PROMPTS


class PlainScores(NamedTuple):
    """What AA-CLIP says of one picture."""

    map: np.ndarray
    """float32 (R, R), after smoothing."""
    image: float
    """Of the whole picture."""


class PlainAAClip:
    """AA-CLIP with adapters in both towers."""

    def __init__(self, backbone: Backbone, tensors: StateDict, config: AAClipConfig) -> None:
        """Take over the weights of a detector, on the device where they are.

        Args:
            backbone: CLIP.
            tensors: the method's own, by the detector's names.
            config: of the detector.
        """
        self.backbone, self.clip, self.tensors = backbone, backbone.clip, tensors
        self.config = config
        self.anchors: dict[str, Tensor] = {}

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray, class_name: str) -> PlainScores:
        """Score a picture, uint8 (H, W, 3)."""
        if class_name not in self.anchors:
            self.anchors[class_name] = self.read(class_name)
        anchors = self.anchors[class_name]
        squashed = torch.tensor(squash(picture, self.backbone.config.image_size))
        pixels = self.backbone.normalise(squashed[None].to(anchors.device))
        levels, detection = self.see(pixels)
        image = (detection @ anchors[:, 1] + 1) / 2
        return PlainScores(map=self.draw(100 * levels @ anchors), image=float(image))

    def see(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Run the vision tower on (1, 3, R, R), normalised.

        Returns:
            The patches of the levels (levels, h·w, D), unit length; the detection token (D,).
        """
        visual = self.clip.visual
        x = self.backbone.embed_patches(pixels)
        tapped = []
        for number, block in enumerate(visual.transformer.resblocks):
            x = run_block(block, x)
            if number < self.config.image_adapt_until:
                name = f"image_adapter.layer_adapters.{number}"
                x = self._adapt(name, x, self.config.image_adapt_weight)
            if number + 1 in self.config.levels:
                tapped.append(visual.ln_post(x[0, 1:]))
        levels = [self._project(f"image_adapter.seg_proj.{i}", t) for i, t in enumerate(tapped)]
        detection = self._project("image_adapter.det_proj", tapped[-1])
        return F.normalize(torch.stack(levels), dim=-1), F.normalize(detection, dim=-1).mean(dim=0)

    def read(self, class_name: str) -> Tensor:
        """Return the anchors (D, 2) of a class."""
        means = []
        for sentences in AACLIP_PROMPTS.sentences(class_name):
            ids = self.backbone.tokenize(sentences).to(self.clip.positional_embedding.device)
            features = F.normalize(self._encode(ids), dim=-1)
            means.append(F.normalize(features.mean(dim=0), dim=0))
        return torch.stack(means, dim=1)

    def _encode(self, ids: Tensor) -> Tensor:
        """Run the text tower: ids (P, context) → features (P, D), any length."""
        clip = self.clip
        x = self.backbone.embed_tokens(ids)
        for number, block in enumerate(clip.transformer.resblocks):
            x = run_block(block, x, clip.attn_mask)
            if number < self.config.text_adapt_until:
                x = self._adapt(f"text_adapter.{number}", x, self.config.text_adapt_weight)
        ends = clip.ln_final(x)[torch.arange(len(ids)), ids.argmax(dim=-1)]
        last = f"text_adapter.{self.config.text_adapt_until}.fc.0.weight"
        return F.leaky_relu(F.linear(ends, self.tensors[last]))

    def draw(self, logits: Tensor) -> np.ndarray:
        """Turn logits (levels, h·w, 2) into a map (R, R)."""
        side = self.backbone.config.image_size
        taps, sigma = self.config.industrial_blur
        normal, anomalous = logits.transpose(1, 2).unflatten(2, self.backbone.grid).unbind(dim=1)
        smooth = gaussian_blur((anomalous + 1 - normal) / 2, [taps, taps], [sigma, sigma])
        pixels = F.interpolate(smooth[None], (side, side), mode="bilinear", align_corners=True)
        summed: np.ndarray = pixels[0].sum(dim=0).cpu().numpy()
        return summed

    def _adapt(self, name: str, x: Tensor, weight: float) -> Tensor:
        adapted = F.leaky_relu(F.linear(x, self.tensors[f"{name}.fc.0.weight"]))
        adapted = adapted * x.norm(dim=-1, keepdim=True) / adapted.norm(dim=-1, keepdim=True)
        mixed: Tensor = weight * adapted + (1 - weight) * x
        return mixed

    def _project(self, name: str, x: Tensor) -> Tensor:
        if self.config.relu:
            return F.leaky_relu(F.linear(x, self.tensors[f"{name}.fc.0.weight"]))
        return F.linear(x, self.tensors[f"{name}.fc.weight"])


def run_block(block: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Run one of open_clip's residual blocks with its modules, in the published way."""
    normed = block.ln_1(x)
    mixed, _ = block.attn(normed, normed, normed, attn_mask=mask)
    x = x + mixed
    result: Tensor = x + block.mlp(block.ln_2(x))
    return result
