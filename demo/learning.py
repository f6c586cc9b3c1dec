"""How the small CLIP learns: pairs of pictures, a loss on every patch, one short loop.

Each damaged picture comes with its undamaged twin. The twin is what the patches are asked to
restore: that teaches what a picture should look like, which marks alone hardly do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from procedural import Pair, make_pair
from splits import Split
from torch import Tensor, nn

from zsad.backbone import Backbone
from zsad.maps import TEMPERATURE
from zsad.prompts import AACLIP_PROMPTS, anchors_of
from zsad.trunk import run_blocks

GENERIC = {"industrial": "object", "medical": "scan"}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures with their truth."""

    pixels: Tensor
    """uint8 (B, 3, R, R)."""
    clean: Tensor
    """uint8 (B, 3, R, R), the same pictures without their defects."""
    masks: Tensor
    """bool (B, R, R)."""
    class_names: list[str]


class Pictures:
    """Pairs drawn beforehand, served in random batches, turned and mirrored."""

    def __init__(self, count: int, *, size: int, seed: int, split: Split = Split.TRAIN) -> None:
        with ProcessPoolExecutor() as pool:
            draw = partial(_draw, size=size, seed=seed, split=split)
            pairs: list[Pair] = list(pool.map(draw, range(count), chunksize=64))
        self.clean = _planes([pair.clean for pair in pairs])
        self.damaged = _planes([pair.damaged for pair in pairs])
        self.masks = torch.from_numpy(np.stack([pair.mask for pair in pairs]))
        self.class_names = [pair.class_name for pair in pairs]
        self.domains = [pair.domain for pair in pairs]
        self.rng = np.random.default_rng(seed)

    def batch(self, size: int) -> Batch:
        """Return a random batch, half of it damaged.

        Half of the class names are not the picture's own: a detector that is told "object" or a
        wrong name has to see the defect all the same.
        """
        rows = self.rng.integers(0, len(self.clean), size)
        damaged = torch.from_numpy(self.rng.random(size) < 0.5)[:, None, None]
        pixels = torch.where(damaged[..., None], self.damaged[rows], self.clean[rows])
        turns, mirrored = int(self.rng.integers(4)), self.rng.random() < 0.5

        def move(pictures: Tensor) -> Tensor:
            turned = torch.rot90(pictures, turns, (-2, -1))
            return turned.flip(-1) if mirrored else turned

        return Batch(
            pixels=move(pixels),
            clean=move(self.clean[rows]),
            masks=move(self.masks[rows] & damaged),
            class_names=[self._name(int(row)) for row in rows],
        )

    def _name(self, row: int) -> str:
        dice = self.rng.random()
        if dice < 0.5:
            return self.class_names[row]
        if dice < 0.75:
            return GENERIC[self.domains[row]]
        return self.class_names[int(self.rng.integers(len(self.class_names)))]


def _draw(number: int, *, size: int, seed: int, split: Split) -> Pair:
    return make_pair(np.random.default_rng([seed, number]), size, split)


def _planes(pictures: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


class Pretraining(nn.Module):
    """A plain CLIP whose patches are told damaged from undamaged by sentences."""

    def __init__(self, backbone: Backbone, *, levels: tuple[int, ...]) -> None:
        """Add what restores a patch's pixels; it is thrown away afterwards."""
        super().__init__()
        self.backbone, self.levels = backbone, levels
        self.patch = backbone.config.image_size // backbone.grid[0]
        self.restore = nn.Linear(backbone.vision_width, 3 * self.patch**2)

    def anchors(self, class_names: list[str]) -> Tensor:
        """Return the anchors (B, D, 2) of a batch, all sentences through the text tower at once."""
        clip, unique = self.backbone.clip, sorted(set(class_names))
        groups = [group for name in unique for group in AACLIP_PROMPTS.sentences(name)]
        ids = self.backbone.tokenize([sentence for group in groups for sentence in group])
        end = ids.argmax(dim=-1)
        tokens = self.backbone.embed_tokens(ids[:, : int(end.max()) + 1])
        x, _ = run_blocks(clip.transformer.resblocks, tokens, causal=True)
        features = clip.ln_final(x)[torch.arange(len(ids)), end] @ clip.text_projection
        parts = torch.split(features, [len(group) for group in groups])
        anchors = [anchors_of(n, a) for n, a in zip(parts[::2], parts[1::2], strict=True)]
        return torch.stack([anchors[unique.index(name)] for name in class_names])

    def forward(self, batch: Batch, *, visible: float) -> Tensor:
        """Return the loss; only a random share `visible` of the patches is looked at.

        Attention to half of the patches costs a quarter, so more pictures are seen in the time.
        """
        B, N = len(batch.pixels), math.prod(self.backbone.grid)
        shown = torch.rand(B, N).argsort(dim=1)[:, : int(N * visible)]
        last, levels = self._tokens(batch.pixels, shown)
        differences = self._differences(levels, batch.class_names)
        restored = self.restore(last[:, 1:]).float()
        share = F.avg_pool2d(batch.masks[:, None].float(), self.patch).flatten(1).gather(1, shown)
        wanted = _rows(F.unfold(batch.clean / 255, self.patch, stride=self.patch).mT, shown)
        return (
            _marking(TEMPERATURE * differences[..., 1:], share[:, None])
            + _telling(20 * differences[:, -1, 0], batch.masks.flatten(1).any(1).float())
            + 5 * F.smooth_l1_loss(restored, (wanted - 0.4) * 4)
        )

    def marks(self, pixels: Tensor, class_names: list[str]) -> Tensor:
        """Return how damaged each patch looks, mean of the levels: (B, 3, R, R) → (B, h·w)."""
        _, levels = self._tokens(pixels, None)
        return self._differences(levels, class_names)[..., 1:].mean(dim=1)

    def _tokens(self, pixels: Tensor, shown: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Run the vision tower on the patches shown, (B, n): last and tapped (B, 1 + n, W)."""
        tokens = self.backbone.embed_patches(self.backbone.normalise(pixels))
        if shown is not None:
            tokens = torch.cat([tokens[:, :1], _rows(tokens[:, 1:], shown)], dim=1)
        blocks = self.backbone.clip.visual.transformer.resblocks
        return run_blocks(blocks, tokens, taps=self.levels)

    def _differences(self, levels: list[Tensor], class_names: list[str]) -> Tensor:
        """Return how much nearer tokens are to the anomalous anchor: cosines (B, levels, 1 + n)."""
        visual = self.backbone.clip.visual
        features = torch.stack([visual.ln_post(x) @ visual.proj for x in levels], dim=1).float()
        anchors = self.anchors(class_names).float()
        cosines = torch.einsum("blnd,bdk->blnk", F.normalize(features, dim=-1), anchors)
        return cosines[..., 1] - cosines[..., 0]


def _rows(tokens: Tensor, chosen: Tensor) -> Tensor:
    """Choose tokens: (B, N, W), (B, n) → (B, n, W)."""
    return tokens.gather(1, chosen[..., None].expand(-1, -1, tokens.shape[-1]))


def _marking(logits: Tensor, share: Tensor) -> Tensor:
    """Return the loss of marks (B, levels, n) against the damaged share of each patch."""
    share = share.expand_as(logits)
    each = F.binary_cross_entropy_with_logits(logits, share, reduction="none")
    found = logits.sigmoid()
    overlap = (2 * (found * share).sum(-1) + 1) / (found.sum(-1) + share.sum(-1) + 1)
    return 4 * (each * (1 + 8 * share)).mean() + 1 - overlap.mean()  # few patches are damaged


def _telling(logits: Tensor, label: Tensor) -> Tensor:
    """Return the loss of the class token, which sees the picture as a whole."""
    return 0.3 * F.binary_cross_entropy_with_logits(logits, label)


def optimisers(module: nn.Module, *, rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices and AdamW for the rest of what is to be trained."""
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim == 2 and min(p.shape) >= 16]
    chosen = {id(p) for p in matrices}
    rest = [p for p in trained if id(p) not in chosen]
    muon = torch.optim.Muon(matrices, lr=10 * rate, weight_decay=0.02)
    return [muon, torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98))]


def fit(
    module: Pretraining,
    pictures: Pictures,
    *,
    steps: int,
    rate: float = 1e-3,
    batch_size: int = 16,
    checks: int,
) -> Iterator[int]:
    """Train; the rate warms up, stays, and falls to zero over the second half.

    Yields the number of steps done, `checks` times, after printing the mean loss.
    """
    active = optimisers(module, rate=rate)
    rates = [optimiser.param_groups[0]["lr"] for optimiser in active]
    threads, started, losses = torch.get_num_threads(), time.monotonic(), []
    for step in range(steps):
        factor = min(1.0, (step + 1) / 30, 2 * (1 - step / steps))
        for optimiser, full in zip(active, rates, strict=True):
            optimiser.param_groups[0]["lr"] = factor * full
            optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = module(pictures.batch(batch_size), visible=0.5 if step < 0.8 * steps else 1.0)
        loss.backward()
        torch.set_num_threads(1)  # the optimisers' matrices are small: a second thread only waits
        for optimiser in active:
            optimiser.step()
        torch.set_num_threads(threads)
        losses.append(loss.item())
        if (step + 1) % math.ceil(steps / checks) == 0 or step + 1 == steps:
            seconds, mean = time.monotonic() - started, np.mean(losses)
            print(f"step {step + 1}/{steps} · loss {mean:.3f} · {seconds:.0f} s", flush=True)
            losses.clear()
            yield step + 1
