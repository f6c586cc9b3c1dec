"""Make the demonstration's CLIP: a small one, trained from random weights on procedural pictures.

    python demo/pretrain_clip.py --output demo/clip.safetensors

It takes about half an hour on two cores, needs no download, and is run once: the result is part
of the repository. That file was made in four runs while the pictures were still being changed, so
this command makes one like it, not the same: 6000 steps before `template.py` was there, then, each
with `--start` on the last, 1800 (seed 3), 1500 (seed 4) and 1100 (seed 5) steps with more brains.

`demo/train_model.py` then trains AA-CLIP's adapters on it, as one does on OpenAI's CLIP. There
are no captioned photographs here to learn from, so the towers learn from the adapters' own task;
the adapters of this run are thrown away.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from learning import Pictures, fit, optimisers
from open_clip.pos_embed import get_2d_sincos_pos_embed
from safetensors.torch import save_file
from torch import Tensor

from zsad.backbone import Backbone, BackboneConfig, load_weights
from zsad.detectors.aaclip import AAClip, AAClipConfig

SIZE, PATCH, WIDTH = 128, 8, 128
ARCHITECTURE = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": SIZE,
        "layers": 4,
        "width": WIDTH,
        "head_width": 64,
        "patch_size": PATCH,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 2},
}
METHOD = AAClipConfig(levels=(1, 2, 3, 4), image_adapt_until=1, text_adapt_until=1)


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


def main() -> None:
    """Parse the command line, train, store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000, help="batches of 16 pictures")
    parser.add_argument("--pictures", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="weights to go on from, not random ones")
    arguments = parser.parse_args()
    backbone = new_backbone(arguments.seed)
    if arguments.start:
        backbone = Backbone(backbone.config, load_weights(arguments.start))
    detector = AAClip(backbone, METHOD).requires_grad_(True)
    clip = detector.backbone.clip
    clip.token_embedding.requires_grad_(False)  # too many words for so few sentences
    pictures = Pictures(arguments.pictures, size=SIZE, seed=arguments.seed)
    fit(detector, pictures, optimisers([detector], rate=1e-3), steps=arguments.steps, bf16=True)
    tensors = {name: t.half().contiguous() for name, t in clip.state_dict().items()}
    described = {"architecture": ARCHITECTURE, "seed": arguments.seed, "steps": arguments.steps}
    save_file(tensors, arguments.output, metadata={"zsad_demo": json.dumps(described)})
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
