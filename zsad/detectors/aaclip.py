"""AA-CLIP: anomaly-aware anchors in both towers of a frozen CLIP (arXiv 2503.06661, CVPR 2025).

Small residual adapters behind the first blocks of each tower move CLIP's features; linear
projections take the patch tokens of four levels into the text space, where the cosine with an
anomalous and a normal anchor makes the map. Names of modules and tensors are those of the
official code (github.com/Mwxinnn/AA-CLIP), so that its checkpoints load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad.backbone import Backbone, BackboneConfig
from zsad.detectors.config import DetectorConfig, ScoreConstants
from zsad.detectors.detector import Domain, PatchScores, Ruled
from zsad.maps import TEMPERATURE, gaussian_blur, level_logits, upsample
from zsad.packing import pack_blocks, pack_layers
from zsad.prompts import AACLIP_PROMPTS, anchors_of
from zsad.scores import ScoreRange
from zsad.trunk import full_precision, run_blocks


@dataclass(frozen=True, kw_only=True, slots=True)
class AAClipConfig(DetectorConfig):
    """Shape of the adapters, and how maps are smoothed."""

    image_adapt_until: int = 6
    """How many vision blocks, from the first, have an adapter."""
    text_adapt_until: int = 3
    image_adapt_weight: float = 0.1
    """Share of the adapter's output in what the next block sees."""
    text_adapt_weight: float = 0.1
    relu: bool = False
    """Whether the level and detection projections end in a LeakyReLU."""
    industrial_blur: tuple[int, float] = (7, 1.0)
    """Size and sigma, in cells of the token grid, of the smoothing of maps: the official values
    are for a grid of 37×37."""
    medical_blur: tuple[int, float] = (9, 1.5)

    def __post_init__(self) -> None:
        for name in ("image_adapt_weight", "text_adapt_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in 0…1, is {getattr(self, name)}")
        DetectorConfig.__post_init__(self)  # super() fails in a class with slots

    def uncalibrated(self) -> ScoreConstants:
        """Return the bounds that a cosine allows.

        Heat reaches from as near to the anomalous anchor as to the normal one, to 0.3 nearer.
        """
        middle, reach = len(self.levels) / 2, len(self.levels) * TEMPERATURE  # of a summed map
        return ScoreConstants(
            score_range=ScoreRange(map=(middle - reach, middle + reach), image=(0.0, 1.0)),
            heat=(middle, middle + 0.3 * reach / 2),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AAClipRule:
    """How maps are smoothed and scores are made. Fulfils `zsad.detectors.detector.ScoreRule`."""

    config: AAClipConfig
    side: int
    """Of the model's input, in pixels."""

    @property
    def heat(self) -> tuple[float, float]:
        """Map values where a picture's heat overlay begins and is full."""
        return self.config.heat

    def render(self, maps: Tensor, size: tuple[int, int], domain: Domain) -> Tensor:
        """Turn patch maps (B, h, w) into anomaly maps (B, H, W): smooth, then interpolate."""
        config = self.config
        taps, sigma = config.medical_blur if domain is Domain.MEDICAL else config.industrial_blur
        return upsample(gaussian_blur(maps, size=taps, sigma=sigma), size)

    def slice_scores(self, scores: PatchScores, domain: Domain) -> Tensor:
        """Return slice scores (B,): the map's peak, for factory images averaged with `image`."""
        rendered = self.render(scores.maps, (self.side, self.side), domain)
        peak = self.config.score_range.scale_map(rendered.amax(dim=(1, 2)))
        if domain is Domain.MEDICAL:
            return peak
        return 0.5 * peak + 0.5 * self.config.score_range.scale_image(scores.image)


class SimpleAdapter(nn.Module):
    """Linear → LeakyReLU, without bias: (…, C) → (…, C)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.LeakyReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Apply both layers."""
        return self.fc(x)  # type: ignore[no-any-return]


class SimpleProjection(nn.Module):
    """Linear, then LeakyReLU where the checkpoint was trained so: (…, C) → (…, D)."""

    def __init__(self, inputs: int, outputs: int, *, relu: bool) -> None:
        super().__init__()
        linear = nn.Linear(inputs, outputs, bias=False)
        self.fc = nn.Sequential(linear, nn.LeakyReLU()) if relu else linear

    def forward(self, x: Tensor) -> Tensor:
        """Apply the projection."""
        return self.fc(x)  # type: ignore[no-any-return]


class ImageAdapter(nn.Module):
    """What the method adds to the vision tower."""

    def __init__(self, width: int, embed_dim: int, config: AAClipConfig) -> None:
        super().__init__()
        self.layer_adapters = nn.ModuleList(
            SimpleAdapter(width, width) for _ in range(config.image_adapt_until)
        )
        self.seg_proj = nn.ModuleList(
            SimpleProjection(width, embed_dim, relu=config.relu) for _ in config.levels
        )
        self.det_proj = SimpleProjection(width, embed_dim, relu=config.relu)


class AAClip(Ruled, nn.Module):
    """The detector. Fulfils `zsad.detectors.detector.Detector`."""

    def __init__(self, backbone: Backbone, config: AAClipConfig) -> None:
        """Add randomly initialised adapters to a backbone.

        Raises:
            ValueError: the method cannot work on this backbone.
        """
        super().__init__()
        blocks = len(backbone.clip.visual.transformer.resblocks)
        if config.levels[-1] > blocks:
            raise ValueError(f"levels {config.levels} ask for more than the {blocks} vision blocks")
        if backbone.text_width != backbone.embed_dim:
            raise ValueError(
                "AA-CLIP replaces the text projection by a square one: text width "
                f"{backbone.text_width} and embedding {backbone.embed_dim} must be equal"
            )
        self.backbone, self.config = backbone, config
        width = backbone.text_width
        self.text_adapter = nn.ModuleList(
            SimpleAdapter(width, width) for _ in range(config.text_adapt_until + 1)
        )
        self.image_adapter = ImageAdapter(backbone.vision_width, backbone.embed_dim, config)
        for weight in [*self.text_adapter.parameters(), *self.image_adapter.parameters()]:
            nn.init.xavier_uniform_(weight)

    @property
    def rule(self) -> AAClipRule:
        """What makes maps and scores of its answers, by its present configuration."""
        return AAClipRule(config=self.config, side=self.backbone.config.image_size)

    @property
    def backbone_config(self) -> BackboneConfig:
        """The CLIP it runs on."""
        return self.backbone.config

    def pack(self, dtype: torch.dtype) -> None:
        """See `zsad.detectors.detector.Detector`. Anchors stay float32: they are made once."""
        clip, tokens = self.backbone.clip, len(self.backbone.clip.visual.positional_embedding)
        pack_blocks(clip.visual.transformer.resblocks, dtype, rows=tokens)
        pack_blocks(clip.transformer.resblocks, torch.float32, rows=clip.context_length)
        pack_layers(self, rows=tokens)

    def encode_text(self, class_names: Sequence[str]) -> Tensor:
        """Return the anchors (C, D, 2) of C class names, unit columns: 0 normal, 1 anomalous."""
        return torch.stack([self._anchors(name) for name in class_names])

    def _anchors(self, class_name: str) -> Tensor:
        normal, anomalous = AACLIP_PROMPTS.sentences(class_name)
        features = self.encode_sentences(self.backbone.tokenize([*normal, *anomalous]))
        return anchors_of(features[: len(normal)], features[len(normal) :])

    def encode_sentences(self, ids: Tensor) -> Tensor:
        """Run the adapted text tower: ids (P, context) → features (P, D), any length.

        The adapter's last matrix takes the place of CLIP's text projection.
        """
        clip, adapters = self.backbone.clip, self.text_adapter
        ids = ids.to(clip.positional_embedding.device)
        end = ids.argmax(dim=-1)  # end-of-text has the highest id
        ids = ids[:, : int(end.max()) + 1]  # the mask is causal: nothing behind the end matters

        def after(number: int, x: Tensor) -> Tensor:
            return self._adapt(number, x, adapters[:-1], self.config.text_adapt_weight)

        x, _ = run_blocks(
            clip.transformer.resblocks, self.backbone.embed_tokens(ids), causal=True, after=after
        )
        x = clip.ln_final(x)[torch.arange(len(ids)), end]
        return adapters[-1](x)  # type: ignore[no-any-return]

    def patch_features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Run the adapted vision tower on pixels, uint8 (B, 3, R, R); see `encode_images`."""
        return self.encode_images(self.backbone.normalise(pixels))

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Run the adapted vision tower.

        Args:
            images: (B, 3, R, R), normalised as CLIP wants it.

        Returns:
            Patch features (B, levels, h·w, D), unit length; detection tokens (B, D), the mean of
            unit vectors and so not of unit length.
        """
        visual, adapters = self.backbone.clip.visual, self.image_adapter

        def after(number: int, x: Tensor) -> Tensor:
            return self._adapt(number, x, adapters.layer_adapters, self.config.image_adapt_weight)

        _, tapped = run_blocks(
            visual.transformer.resblocks,
            self.backbone.embed_patches(images),
            after=after,
            taps=self.config.levels,
        )
        with full_precision(images):
            levels = [visual.ln_post(tokens[:, 1:]) for tokens in tapped]
            projected = [proj(x) for proj, x in zip(adapters.seg_proj, levels, strict=True)]
            detection = F.normalize(adapters.det_proj(levels[-1]), dim=-1).mean(dim=1)
            return F.normalize(torch.stack(projected, dim=1), dim=-1), detection

    def forward(self, pixels: Tensor, texts: Sequence[Tensor]) -> PatchScores:
        """Score slices: pixels uint8 (B, 3, R, R), their classes' anchors, B of (D, 2)."""
        features, detection = self.patch_features(pixels)
        anchors = torch.stack(list(texts))
        with full_precision(features):
            maps = self.level_maps(features, anchors).sum(dim=1)
            image = (torch.einsum("bd,bd->b", detection, anchors[..., 1]) + 1) / 2
        return PatchScores(maps=maps, image=image)

    def level_maps(self, features: Tensor, anchors: Tensor) -> Tensor:
        """Return one patch map a level (B, levels, h, w), before smoothing."""
        normal, anomalous = level_logits(features, anchors).unbind(dim=-1)
        # The official code adds 1 to the difference although it is ×100 by then.
        h, w = self.backbone.grid
        return ((anomalous + 1 - normal) / 2).view(*normal.shape[:2], h, w)

    @staticmethod
    def _adapt(number: int, x: Tensor, adapters: nn.ModuleList, weight: float) -> Tensor:
        """Mix an adapter's output, token by token of the length of its input, into a block's."""
        if number > len(adapters):
            return x
        adapted = adapters[number - 1](x)
        adapted = adapted * (x.norm(dim=-1, keepdim=True) / adapted.norm(dim=-1, keepdim=True))
        mixed: Tensor = weight * adapted + (1 - weight) * x
        return mixed
