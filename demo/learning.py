"""How the demonstration model learns: procedural batches, AA-CLIP's loss terms, one short loop."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from procedural import Sample, make_sample
from torch import Tensor, nn

from zsad.detectors.aaclip import TEMPERATURE, AAClip
from zsad.prompts import AACLIP_PROMPTS, anchors_of

GENERIC = {"industrial": "object", "medical": "scan"}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures with their truth."""

    pixels: Tensor
    """uint8 (B, 3, R, R)."""
    masks: Tensor
    """bool (B, R, R)."""
    class_names: list[str]


class Pictures:
    """Samples drawn beforehand, served in random batches, turned and mirrored."""

    def __init__(self, count: int, *, size: int, seed: int) -> None:
        with ProcessPoolExecutor() as pool:
            draw = partial(_draw, size=size, seed=seed)
            samples = list(pool.map(draw, range(count), chunksize=64))
        images = np.stack([sample.image for sample in samples])
        self.pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.masks = torch.from_numpy(np.stack([sample.mask for sample in samples]))
        self.class_names = [sample.class_name for sample in samples]
        self.domains = [sample.domain for sample in samples]
        self.rng = np.random.default_rng(seed)

    def batch(self, size: int) -> Batch:
        """Return a random batch, turned and mirrored.

        Half of the class names are not the picture's own: a detector that is told "object" or a
        wrong name has to see the defect all the same.
        """
        rows = self.rng.integers(0, len(self.pixels), size)
        pixels, masks = self.pixels[rows], self.masks[rows]
        turns = int(self.rng.integers(4))
        pixels, masks = torch.rot90(pixels, turns, (2, 3)), torch.rot90(masks, turns, (1, 2))
        if self.rng.random() < 0.5:
            pixels, masks = pixels.flip(3), masks.flip(2)
        names = [self._name(int(row)) for row in rows]
        return Batch(pixels=pixels, masks=masks, class_names=names)

    def _name(self, row: int) -> str:
        dice = self.rng.random()
        if dice < 0.5:
            return self.class_names[row]
        if dice < 0.75:
            return GENERIC[self.domains[row]]
        return self.class_names[int(self.rng.integers(len(self.class_names)))]


def _draw(number: int, *, size: int, seed: int) -> Sample:
    return make_sample(np.random.default_rng([seed, number]), size)


def batch_anchors(detector: AAClip, class_names: list[str]) -> Tensor:
    """Return the anchors (B, D, 2) of a batch, all sentences through the text tower at once."""
    unique = sorted(set(class_names))
    groups = [group for name in unique for group in AACLIP_PROMPTS.sentences(name)]
    ids = detector.backbone.tokenize([sentence for group in groups for sentence in group])
    parts = torch.split(detector.encode_sentences(ids), [len(group) for group in groups])
    anchors = [anchors_of(n, a) for n, a in zip(parts[::2], parts[1::2], strict=True)]
    return torch.stack([anchors[unique.index(name)] for name in class_names])


def loss_of(detector: AAClip, batch: Batch, *, bf16: bool) -> Tensor:
    """Return AA-CLIP's stage-2 loss: focal + dice of each level, and the image's cross-entropy.

    Masks are taken down to the token grid, as shares of a patch, instead of the maps up to the
    pixels: that is 64 times less work and serves a model of 128 px as well.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        anchors = batch_anchors(detector, batch.class_names)
        features, detection = detector.patch_features(batch.pixels)
    features, detection, anchors = features.float(), detection.float(), anchors.float()
    cosines = torch.einsum("blnd,bdk->blnk", features, anchors)
    logits = TEMPERATURE * (cosines[..., 1] - cosines[..., 0])
    patch = batch.masks.shape[-1] // detector.backbone.grid[0]
    share = F.avg_pool2d(batch.masks[:, None].float(), patch).flatten(2).expand_as(logits)
    each = F.binary_cross_entropy_with_logits(logits, share, reduction="none")
    focal = (each * (1 + 8 * share)).mean()  # few patches are defective
    found = logits.sigmoid()
    overlap = (found * share).sum(-1)
    dice = 1 - ((2 * overlap + 1) / (found.sum(-1) + share.sum(-1) + 1)).mean()
    image = torch.einsum("bd,bdk->bk", detection, anchors)
    label = batch.masks.flatten(1).any(1).float()
    whole = F.binary_cross_entropy_with_logits(20 * (image[:, 1] - image[:, 0]), label)
    return 4 * focal + dice + 0.3 * whole


def optimisers(modules: Iterable[nn.Module], *, rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices and AdamW for the rest of what is to be trained.

    From random weights Muon needs about half the steps of AdamW alone.
    """
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim == 2 and min(p.shape) >= 16]
    chosen = {id(p) for p in matrices}
    rest = [p for p in trained if id(p) not in chosen]
    muon = torch.optim.Muon(matrices, lr=10 * rate, weight_decay=0.02)
    return [muon, torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98))] if rest else [muon]


def fit(
    detector: AAClip,
    pictures: Pictures,
    optimisers: list[torch.optim.Optimizer],
    *,
    steps: int,
    batch_size: int = 16,
    bf16: bool,
) -> None:
    """Train what the optimisers hold; the rate warms up, stays, and falls to zero.

    Prints the mean loss about twenty times.
    """
    rates = [optimiser.param_groups[0]["lr"] for optimiser in optimisers]
    started, losses = time.monotonic(), []
    for step in range(steps):
        factor = min(1.0, (step + 1) / 30, 2 * (1 - step / steps))
        for optimiser, rate in zip(optimisers, rates, strict=True):
            optimiser.param_groups[0]["lr"] = factor * rate
            optimiser.zero_grad()
        loss = loss_of(detector, pictures.batch(batch_size), bf16=bf16)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers:
            optimiser.step()
        losses.append(loss.item())
        if (step + 1) % max(1, steps // 20) == 0:
            seconds, mean = time.monotonic() - started, np.mean(losses)
            print(f"step {step + 1}/{steps} · loss {mean:.3f} · {seconds:.0f} s", flush=True)
            losses.clear()
