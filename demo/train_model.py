"""Train the demonstration model: AA-CLIP's adapters on the small CLIP, for about a minute.

    python demo/train_model.py --output build/demo/model.safetensors

The pictures are drawn by program, or warped slices of a brain template that a package ships, so
nothing is downloaded. The model shows how the software works; it is for no other use.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from learning import Pictures, fit, optimisers
from safetensors import safe_open
from torch import nn

from zsad.backbone import Backbone, BackboneConfig, load_weights
from zsad.checkpoints import Checkpoint, digest_of, save_checkpoint
from zsad.detectors.aaclip import AAClip, AAClipConfig
from zsad.detectors.detector import Domain, PatchScores
from zsad.scores import ScoreRange

CLIP = Path(__file__).with_name("clip.safetensors")
METHOD = AAClipConfig(
    levels=(3, 4),
    image_adapt_until=1,
    text_adapt_until=1,
    industrial_blur=(5, 0.5),  # as wide, on 16×16 tokens, as the official ones on 37×37
    medical_blur=(5, 0.65),
)
NOTE = (
    "Demonstration model: AA-CLIP adapters trained for about a minute on a small CLIP, with "
    "pictures drawn by program. It shows how the software works; what it marks is no finding."
)


def load_small_clip() -> Backbone:
    """Load the CLIP that `demo/pretrain_clip.py` made."""
    with safe_open(CLIP, framework="pt") as file:
        described = json.loads(file.metadata()["zsad_demo"])
    architecture = described["architecture"]
    size = architecture["vision_cfg"]["image_size"]
    config = BackboneConfig(architecture=architecture, activation="gelu", image_size=size)
    return Backbone(config, load_weights(CLIP))


@torch.inference_mode()
def calibrate(detector: AAClip, pictures: Pictures) -> AAClipConfig:
    """Measure on pictures not trained on what is usual, and what a defect looks like.

    A normal picture's typical peak becomes score 0, a defective one's 1. Heat begins where 1 in
    200 normal pixels lies, and is full at a defective picture's typical peak.
    """
    names = sorted(set(pictures.class_names))
    anchors = dict(zip(names, detector.encode_text(names), strict=True))
    size = detector.backbone.config.image_size
    found = [
        detector(pixels[None], anchors[name][None])
        for pixels, name in zip(pictures.pixels, pictures.class_names, strict=True)
    ]
    scores = PatchScores(*(torch.cat(parts) for parts in zip(*found, strict=True)))
    maps = detector.render(scores.maps, (size, size), Domain.INDUSTRIAL)
    defective = pictures.masks.flatten(1).any(dim=1)
    peaks, image = maps.amax(dim=(1, 2)), scores.image

    def typical(values: torch.Tensor) -> tuple[float, float]:
        normal, found = values[~defective].median().item(), values[defective].median().item()
        return normal, max(found, normal + values.std().item())  # whatever was learnt, a scale

    low, high = typical(peaks)
    begin = float(np.quantile(maps[~defective].numpy(), 0.995))
    return dataclasses.replace(
        detector.config,
        score_range=ScoreRange(map=(low, high), image=typical(image)),
        heat=(begin, max(high, begin + 1)),
    )


def train(*, steps: int, pictures: int, seed: int) -> AAClip:
    """Train new adapters; the CLIP stays as it is."""
    torch.manual_seed(seed)
    detector = AAClip(load_small_clip(), METHOD)
    adapters: list[nn.Module] = [detector.text_adapter, detector.image_adapter]
    drawn = Pictures(pictures, size=detector.backbone.config.image_size, seed=seed + 1)
    fit(detector, drawn, optimisers(adapters, rate=1e-3), steps=steps, bf16=False)
    return detector


def main() -> None:
    """Parse the command line, train, calibrate, store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300, help="batches of 16 pictures")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    print("training the demonstration model, about a minute", flush=True)
    detector = train(steps=arguments.steps, pictures=arguments.pictures, seed=arguments.seed)
    held_out = Pictures(300, size=detector.backbone.config.image_size, seed=arguments.seed + 2)
    config = calibrate(detector, held_out)
    state = detector.state_dict()
    checkpoint = Checkpoint(
        method="aaclip",
        backbone=detector.backbone.config,
        method_config=dataclasses.asdict(config),
        tensors={name: t for name, t in state.items() if not name.startswith("backbone.")},
        clip={name: t.half() for name, t in detector.backbone.clip.state_dict().items()},
        note=NOTE,
        training={
            "data": "demo/procedural.py",
            "seed": arguments.seed,
            "steps": arguments.steps,
            "clip": digest_of([CLIP]),
        },
    )
    save_checkpoint(arguments.output, checkpoint)
    print(f"{arguments.output}: {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
