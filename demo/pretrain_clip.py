"""Make the CLIP of the embedded model: a small one, trained from random weights.

    python demo/pretrain_clip.py --output build/tiny/clip.safetensors

There are no captioned photographs here to learn from. The towers learn on pictures drawn by
program and on warped slices of a brain template (`procedural.py`), from sentences about their
patches: "a photo of a damaged tile" for those with a defect, "a photo of a tile" for the others;
and, as a second task whose weights are thrown away, to restore what a damaged patch should be.
AA-CLIP is then trained on it as on any CLIP, by `jobs/train.py`.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from learning import Pictures, Pretraining, fit
from open_clip.pos_embed import get_2d_sincos_pos_embed
from splits import Split
from torch import Tensor

from zsad.backbone import Backbone, BackboneConfig
from zsad.checkpoints import save_clip
from zsad.metrics import rank_images

SIZE, PATCH, WIDTH, LAYERS = 128, 8, 192, 6
LEVELS = (3, 4, 5, 6)
ARCHITECTURE = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": SIZE,
        "layers": LAYERS,
        "width": WIDTH,
        "head_width": 64,
        "patch_size": PATCH,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 2},
}


def new_backbone(seed: int) -> Backbone:
    """Return a CLIP of random weights, but for what every vision model learns first anyway.

    That is: patches seen through cosine waves, and a grid whose neighbours have similar positions.
    """
    torch.manual_seed(seed)
    backbone = Backbone(
        BackboneConfig(architecture=ARCHITECTURE, activation="gelu", image_size=SIZE)
    )
    visual = backbone.clip.visual
    grid = get_2d_sincos_pos_embed(WIDTH, SIZE // PATCH, cls_token=True)
    visual.positional_embedding.data.copy_(torch.from_numpy(grid))
    waves = cosine_waves()
    visual.conv1.weight.data[: len(waves)] = waves
    return backbone


def cosine_waves() -> Tensor:
    """Return filters (N, 3, patch, patch): waves from coarse to fine in light, then in colour."""
    position = torch.arange(PATCH) + 0.5
    waves = torch.stack([torch.cos(math.pi * position * k / PATCH) for k in range(PATCH)])
    waves = waves / waves.norm(dim=1, keepdim=True)
    order = sorted(
        ((a, b) for a in range(PATCH) for b in range(PATCH)), key=lambda ab: (sum(ab), ab)
    )
    planes = torch.stack([torch.outer(waves[a], waves[b]) for a, b in order])
    mixes = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]])
    mixes = mixes / mixes.norm(dim=1, keepdim=True)
    colour = WIDTH // 8
    counts = (min(len(planes), WIDTH - 2 * colour), colour, colour)
    parts = [
        mix.view(1, 3, 1, 1) * planes[:count, None]
        for mix, count in zip(mixes, counts, strict=True)
    ]
    return torch.cat(parts) * 4 / PATCH


@torch.inference_mode()
def told_apart(module: Pretraining, pictures: Pictures) -> dict[str, float | None]:
    """Return, by domain, how well a picture's highest mark tells damaged ones from twins: AUROC."""
    scores = []
    for pixels in (pictures.clean, pictures.damaged):
        batches = zip(torch.split(pixels, 50), _split(pictures.class_names, 50), strict=True)
        with torch.autocast("cpu", torch.bfloat16):
            seen = torch.cat([module.marks(batch, names) for batch, names in batches])
        scores.append(seen.amax(dim=1).float().numpy())
    found = {}
    for domain in sorted(set(pictures.domains)):
        rows = np.array(pictures.domains) == domain
        labels = np.repeat([False, True], rows.sum())
        highest = np.concatenate([marks[rows] for marks in scores])
        found[domain] = rank_images(highest.tolist(), labels.tolist()).auroc()
    return found


def _split(names: list[str], size: int) -> list[list[str]]:
    return [names[start : start + size] for start in range(0, len(names), size)]


def store(path: Path, backbone: Backbone, training: dict[str, object]) -> None:
    """Write the towers in half precision."""
    tensors = {name: t.half() for name, t in backbone.clip.state_dict().items()}
    save_clip(path, backbone.config, tensors, training=training)


def main() -> None:
    """Parse the command line, train, store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000, help="batches of 16 pictures")
    parser.add_argument("--pictures", type=int, default=12000, help="pairs drawn beforehand")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    module = Pretraining(new_backbone(arguments.seed), levels=LEVELS).requires_grad_(True)
    clip = module.backbone.clip
    clip.token_embedding.requires_grad_(False)  # too many words for so few sentences
    torch.manual_seed(arguments.seed)
    print(f"drawing {arguments.pictures} pairs of pictures", flush=True)
    pictures = Pictures(arguments.pictures, size=SIZE, seed=arguments.seed)
    chosen = Pictures(200, size=SIZE, seed=arguments.seed, split=Split.CHOOSE)
    described = {"by": "demo/pretrain_clip.py", "steps": arguments.steps, "seed": arguments.seed}
    for _ in fit(module, pictures, steps=arguments.steps, checks=8):
        told = " · ".join(f"{k} {v:.3f}" for k, v in told_apart(module, chosen).items())
        print(f"  unseen classes and defects, AUROC: {told}", flush=True)
        store(arguments.output, module.backbone, described)  # something is left of a broken run
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
