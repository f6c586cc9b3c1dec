"""AdaCLIP: learnt prompt tokens in both towers of a frozen CLIP (arXiv 2407.15795, ECCV 2024).

Static prompts are the same for every picture, dynamic ones are made from its plain CLIP embedding.
In the first blocks they ride along with the patches, and take the place of the first words of each
sentence; so the anchors belong to the picture, not to its class alone. Names of modules and tensors
are those of the official code (github.com/caoyunkang/AdaCLIP), but for its prefix `clip_model.`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from zsad.backbone import Backbone, BackboneConfig
from zsad.detectors.config import DetectorConfig, ScoreConstants
from zsad.detectors.detector import ClassText, Domain, PatchScores, Ruled, SentenceTokens
from zsad.maps import level_logits, log_odds, upsample
from zsad.packing import pack_blocks, pack_layers
from zsad.prompts import ADACLIP_PROMPTS, anchors_of
from zsad.scores import ScoreRange
from zsad.semantic_fusion import semantic_fusion
from zsad.trunk import answer, ask, full_precision, run_blocks

FUSED_WEIGHT = 0.2
"""Share of the fused patches in the feature that a picture's score is made of."""
TEXT_TOKENS_AT_ONCE = 1 << 13
"""Of the text tower: 100 MB of activations at width 768."""
RENDERED_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaClipConfig(DetectorConfig):
    """Kind and place of the prompts, and how scores and maps are made."""

    prompt_type: str = "SD"
    """"S": static, "D": dynamic, "SD": both, added up; "": none."""
    prompt_branch: str = "VL"
    """Towers that are prompted: "V" the vision tower, "L" the text tower, "VL" both, "" none."""
    prompt_depth: int = 4
    """Blocks, from the first, that get prompts of their own; but for the first text block."""
    prompt_length: int = 5
    """Tokens."""
    hsf: bool = True
    """Hybrid semantic fusion: whether the most anomalous patches take part in the image score."""
    clusters: int = 20
    """That these patches are parted into."""
    blur_sigma: float = 4.0
    """Of the smoothing of maps, in pixels of the model's input."""

    def __post_init__(self) -> None:
        for name, known in (("prompt_type", "SD"), ("prompt_branch", "VL")):
            if getattr(self, name) not in ("", known[0], known[1], known):
                raise ValueError(f"{name} must be of {known!r}, is {getattr(self, name)!r}")
        if self.prompt_branch and not self.prompt_type:
            raise ValueError(f"prompt_branch {self.prompt_branch!r} needs a prompt_type")
        for name in ("prompt_depth", "prompt_length", "clusters"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, is {getattr(self, name)}")
        if self.blur_sigma < 0:
            raise ValueError(f"blur_sigma is below 0: {self.blur_sigma}")
        DetectorConfig.__post_init__(self)  # super() fails in a class with slots

    def uncalibrated(self) -> ScoreConstants:
        """Return scores as they are; heat reaches from "as likely as not" to certain."""
        return ScoreConstants(
            score_range=ScoreRange(map=(0.0, 1.0), image=(0.0, 1.0)), heat=(0.5, 1.0)
        )

    @property
    def prompts_text(self) -> bool:
        """Whether any text block is prompted."""
        return "L" in self.prompt_branch and self.prompt_depth > 1

    @property
    def text_sees_image(self) -> bool:
        """Whether anchors depend on the picture."""
        return self.prompts_text and "D" in self.prompt_type


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaClipRule:
    """How maps and scores are made of log-odds. Fulfils `zsad.detectors.detector.ScoreRule`."""

    config: AdaClipConfig
    side: int
    """Of the model's input, in pixels."""

    @property
    def heat(self) -> tuple[float, float]:
        """Map values where a picture's heat overlay begins and is full."""
        return self.config.heat

    def render(self, maps: Tensor, size: tuple[int, int], domain: Domain) -> Tensor:
        """Turn patch maps (B, h, w) into probabilities (B, H, W): enlarge, squash, smooth.

        All at the size of the model's input, as the official code does; then to that of the slice.
        """
        square = (self.side, self.side)
        sigma = (0, self.config.blur_sigma, self.config.blur_sigma)
        parts = []
        for part in torch.split(maps, RENDERED_AT_ONCE):
            likely = upsample(part, square).sigmoid()
            smooth = torch.from_numpy(gaussian_filter(likely.cpu().numpy(), sigma)).to(maps.device)
            parts.append(smooth if size == square else upsample(smooth, size))
        return torch.cat(parts)

    def slice_scores(self, scores: PatchScores, domain: Domain) -> Tensor:
        """Return slice scores (B,): log-odds, moved to the constants' scale. Maps have no part."""
        return self.config.score_range.scale_image(scores.image)


class Prompter(nn.Module):
    """The prompt tokens of one tower."""

    def __init__(self, width: int, config: AdaClipConfig, *, enabled: bool) -> None:
        super().__init__()
        static = config.prompt_depth if enabled and "S" in config.prompt_type else 0
        tokens = [torch.empty(config.prompt_length, width) for _ in range(static)]
        self.static_prompts = nn.ParameterList(nn.init.normal_(each, std=0.02) for each in tokens)

    def tokens(self, index: int, dynamic: Tensor | None, count: int) -> Tensor:
        """Return the prompts that block `index`, from 0, sees: (count, length, W).

        Args:
            index: below the depth.
            dynamic: the pictures' own prompts, (count, length, W).
            count: how many pictures.
        """
        if not len(self.static_prompts):
            assert dynamic is not None
            return dynamic
        static: Tensor = self.static_prompts[index].expand(count, -1, -1)
        return static if dynamic is None else static + dynamic


class Projections(nn.Module):
    """Linear maps side by side, (…, C) → (…, D) each."""

    def __init__(self, inputs: int, outputs: int, count: int) -> None:
        super().__init__()
        self.head = nn.ModuleList(nn.Linear(inputs, outputs) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """Apply all of them to the same vectors: (B, C) → (B, count, D)."""
        return torch.stack([head(x) for head in self.head], dim=1)


class DynamicPrompts(NamedTuple):
    """What prompts pictures make for themselves; None where a tower gets none."""

    visual: Tensor | None
    """(B, length, vision width)."""
    text: Tensor | None
    """(B, length, text width)."""


class Seen(NamedTuple):
    """What the vision tower makes of pictures."""

    patches: Tensor
    """(B, levels, h·w, D), unit length."""
    image: Tensor
    """(B, D), unit length."""
    text_prompts: Tensor | None
    """(B, length, text width): their dynamic prompts for the text tower."""


class AdaClip(Ruled, nn.Module):
    """The detector. Fulfils `zsad.detectors.detector.Detector`."""

    def __init__(self, backbone: Backbone, config: AdaClipConfig) -> None:
        """Add randomly initialised prompts and projections to a backbone.

        Raises:
            ValueError: the method cannot work on this backbone.
        """
        super().__init__()
        blocks = len(backbone.clip.visual.transformer.resblocks)
        if config.levels[-1] > blocks:
            raise ValueError(f"levels {config.levels} ask for more than the {blocks} vision blocks")
        words = backbone.clip.context_length - 2
        if config.prompts_text and config.prompt_length > words:
            raise ValueError(f"prompt_length {config.prompt_length}: a sentence has {words} words")
        text_blocks = len(backbone.clip.transformer.resblocks)
        if config.prompts_text and text_blocks < 2:
            raise ValueError("prompt_branch L: the only block of the text tower sees no prompts")
        self.backbone, self.config = backbone, config
        self.visual_depth = min(config.prompt_depth, blocks)
        self.text_depth = min(config.prompt_depth, text_blocks)
        vision, text, embed = backbone.vision_width, backbone.text_width, backbone.embed_dim
        in_text, in_vision = "L" in config.prompt_branch, "V" in config.prompt_branch
        self.text_prompter = Prompter(text, config, enabled=in_text)
        self.visual_prompter = Prompter(vision, config, enabled=in_vision)
        self.patch_token_layer = Projections(vision, embed, len(config.levels))
        self.cls_token_layer = Projections(embed, embed, 1)
        if "D" in config.prompt_type:
            length = config.prompt_length
            self.dynamic_visual_prompt_generator = Projections(embed, vision, length)
            self.dynamic_text_prompt_generator = Projections(embed, text, length)

    @property
    def rule(self) -> AdaClipRule:
        """What makes maps and scores of its answers, by its present configuration."""
        return AdaClipRule(config=self.config, side=self.backbone.config.image_size)

    @property
    def backbone_config(self) -> BackboneConfig:
        """The CLIP it runs on."""
        return self.backbone.config

    def pack(self, dtype: torch.dtype) -> None:
        """See `zsad.detectors.detector.Detector`. Text blocks see slices too, by their prompts."""
        clip, tokens = self.backbone.clip, len(self.backbone.clip.visual.positional_embedding)
        pack_blocks(clip.visual.transformer.resblocks, dtype, rows=tokens)
        pack_blocks(clip.transformer.resblocks, dtype, rows=clip.context_length)
        pack_layers(self, rows=tokens)

    def forward(self, pixels: Tensor, texts: Sequence[ClassText]) -> PatchScores:
        """Score slices: pixels uint8 (B, 3, R, R), and what `encode_text` gave of their classes.

        Scores are log-odds: their sigmoid is the official score, but does not stick at 1.

        Pictures of a batch are scored as each alone, but for rounding. That decides where two
        patches, or two clusterings, are as good but for it: the fusion may take the other one.
        """
        seen = self.encode_images(self.backbone.normalise(pixels))
        anchors = self.anchors(texts, seen.text_prompts)
        with full_precision(seen.patches):
            logits = level_logits(seen.patches, anchors)
            maps = log_odds(logits).mean(dim=1)
            image = log_odds(self.image_logits(seen, maps, anchors))
        return PatchScores(maps=maps.view(-1, *self.backbone.grid), image=image)

    def encode_images(self, images: Tensor) -> Seen:
        """Run the vision tower, with prompts, on images (B, 3, R, R), normalised for CLIP."""
        tokens = self.backbone.embed_patches(images)
        dynamic = self.dynamic_prompts(tokens)
        embedding, tapped = self.prompted_tokens(tokens, dynamic.visual)
        with full_precision(images):
            levels = zip(self.patch_token_layer.head, tapped, strict=True)
            patches = torch.stack([head(tokens[:, 1:]) for head, tokens in levels], dim=1)
            image = self.cls_token_layer(embedding)[:, 0]
            return Seen(F.normalize(patches, dim=-1), F.normalize(image, dim=-1), dynamic.text)

    def dynamic_prompts(self, tokens: Tensor) -> DynamicPrompts:
        """Make prompts from what plain CLIP says of its embedded patches (B, 1 + h·w, W)."""
        config = self.config
        for_vision = "D" in config.prompt_type and "V" in config.prompt_branch
        if not (for_vision or config.text_sees_image):
            return DynamicPrompts(None, None)
        last, _ = run_blocks(self.backbone.clip.visual.transformer.resblocks, tokens)
        embedding = self._embed(last)
        with full_precision(tokens):
            return DynamicPrompts(
                self.dynamic_visual_prompt_generator(embedding) if for_vision else None,
                self.dynamic_text_prompt_generator(embedding) if config.text_sees_image else None,
            )

    def prompted_tokens(
        self, tokens: Tensor, dynamic: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the vision blocks with prompts behind the patches.

        Args:
            tokens: embedded patches (B, 1 + h·w, W).
            dynamic: (B, length, W).

        Returns:
            CLIP's embedding (B, D), any length, and each level's tokens (B, 1 + h·w, W).
        """
        length = self.config.prompt_length
        B, N, _ = tokens.shape
        if prompted := "V" in self.config.prompt_branch:
            prompts = self.visual_prompter.tokens(0, dynamic, B)
            tokens = torch.cat([tokens, prompts], dim=1)

        def after(number: int, x: Tensor) -> Tensor:
            if not prompted or number >= self.visual_depth:
                return x
            prompts = self.visual_prompter.tokens(number, dynamic, B)
            return torch.cat([x[:, :-length], prompts], dim=1)

        last, tapped = run_blocks(
            self.backbone.clip.visual.transformer.resblocks,
            tokens,
            after=after,
            taps=self.config.levels,
        )
        return self._embed(last), [x[:, :N] for x in tapped]

    def _embed(self, last: Tensor) -> Tensor:
        """Return CLIP's embedding of the last block's tokens: (B, N, W) → (B, D), any length."""
        visual = self.backbone.clip.visual
        with full_precision(last):
            embedding: Tensor = visual.ln_post(last[:, 0]) @ visual.proj
            return embedding

    def encode_text(self, class_names: Sequence[str]) -> Sequence[ClassText]:
        """Return anchors, C of (D, 2), or as much of them as does not depend on a picture."""
        begun = [self.begin(name) for name in class_names]
        return begun if self.config.text_sees_image else list(self.finish(begun, None))

    def anchors(self, texts: Sequence[Any], dynamic: Tensor | None) -> Tensor:
        """Return the anchors (B, D, 2) of pictures with dynamic prompts (B, length, text width)."""
        if isinstance(texts[0], Tensor):
            return torch.stack(list(texts))
        longest = max(text.tokens.shape[1] for text in texts)
        at_once = max(1, TEXT_TOKENS_AT_ONCE // (len(texts[0].tokens) * longest))
        parts = [
            self.finish(texts[rows], None if dynamic is None else dynamic[rows])
            for start in range(0, len(texts), at_once)
            for rows in [slice(start, start + at_once)]
        ]
        return torch.cat(parts)

    def begin(self, class_name: str) -> SentenceTokens:
        """Run the first text block, which no prompt reaches, on all sentences of a class."""
        clip = self.backbone.clip
        normal, anomalous = ADACLIP_PROMPTS.sentences(class_name.replace("-", " "))
        ids = self.backbone.tokenize([*normal, *anomalous]).to(clip.positional_embedding.device)
        ends = ids.argmax(dim=-1)  # end-of-text has the highest id
        # The mask is causal: nothing behind the end matters. But one token must follow the prompts.
        count = max(int(ends.max()) + 1, self.config.prompt_length + 2)
        tokens = self.backbone.embed_tokens(ids[:, :count])
        tokens, _ = run_blocks(clip.transformer.resblocks[:1], tokens, causal=True)
        return SentenceTokens(tokens, ends)

    def finish(self, texts: Sequence[SentenceTokens], dynamic: Tensor | None) -> Tensor:
        """Return the anchors (B, D, 2) of B begun texts, each with its own picture's prompts."""
        features = self.encode_sentences(texts, dynamic)
        with full_precision(features):
            n = ADACLIP_PROMPTS.normal_count
            return anchors_of(features[:, :n], features[:, n:])

    def encode_sentences(self, texts: Sequence[SentenceTokens], dynamic: Tensor | None) -> Tensor:
        """Run the other text blocks: B texts of P sentences → features (B, P, D), any length."""
        clip, longest = self.backbone.clip, max(text.tokens.shape[1] for text in texts)
        padded = [F.pad(t.tokens, (0, 0, 0, longest - t.tokens.shape[1])) for t in texts]
        tokens, ends = torch.stack(padded), torch.stack([text.ends for text in texts])
        if self.config.prompts_text:
            last = self._prompted_sentences(tokens, dynamic)
        else:
            blocks = clip.transformer.resblocks[1:]
            last = run_blocks(blocks, tokens.flatten(0, 1), causal=True)[0].view_as(tokens)
        with full_precision(last):
            read = ends[..., None, None].expand(-1, -1, 1, last.shape[-1])
            features: Tensor = clip.ln_final(last.gather(2, read)[:, :, 0]) @ clip.text_projection
            return features

    def _prompted_sentences(self, tokens: Tensor, dynamic: Tensor | None) -> Tensor:
        """Run all text blocks but the first, with prompts in the place of the first words.

        Behind the first block, the start of the text and the prompts are the same in all sentences,
        and see nothing but themselves: they go through the blocks once a picture, and their keys
        and values are what the rest of each sentence looks back at.

        Args:
            tokens: (B, P, N, W), what the first block gave.
            dynamic: (B, length, W).

        Returns:
            (B, P, N, W).
        """
        B, P, N, _ = tokens.shape
        shared = 1 + self.config.prompt_length
        before: list[tuple[Tensor, Tensor]] = []

        def remember(_: int, attention: Any, x: Tensor) -> Tensor:
            q, k, v = ask(attention, x)
            before.append((k.repeat_interleave(P, dim=0), v.repeat_interleave(P, dim=0)))
            return answer(attention, q, k, v, causal=True)

        def prompt(number: int, x: Tensor) -> Tensor:
            if number + 1 >= self.text_depth:
                return x
            return torch.cat([x[:, :1], self.text_prompter.tokens(number + 1, dynamic, B)], dim=1)

        visible = torch.ones(N - shared, N, dtype=torch.bool, device=tokens.device).tril(shared)

        def look_back(number: int, attention: Any, x: Tensor) -> Tensor:
            q, k, v = ask(attention, x)
            keys, values = before[number - 1]
            k, v = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
            return answer(attention, q, k, v, mask=visible)

        blocks = self.backbone.clip.transformer.resblocks[1:]
        start = prompt(0, tokens[:, 0, :shared])
        start, _ = run_blocks(blocks, start, attention=remember, after=prompt)
        rest, _ = run_blocks(blocks, tokens[:, :, shared:].flatten(0, 1), attention=look_back)
        start = start[:, None].expand(-1, P, -1, -1)
        return torch.cat([start, rest.view(B, P, N - shared, -1)], dim=2)

    def image_logits(self, seen: Seen, maps: Tensor, anchors: Tensor) -> Tensor:
        """Return 100 × the cosines of pictures to their anchors (B, D, 2): (B, 2).

        Args:
            seen: of the vision tower.
            maps: log-odds of patches, (B, h·w), which say where to look.
            anchors: (B, D, 2).
        """
        feature = seen.image
        if self.config.hsf:
            fused = semantic_fusion(seen.patches, maps, self.config.clusters)
            feature = F.normalize(FUSED_WEIGHT * fused + (1 - FUSED_WEIGHT) * feature, dim=-1)
        return level_logits(feature[:, None, None], anchors)[:, 0, 0]
