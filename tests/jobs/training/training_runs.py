"""A training small enough for a test: a tiny CLIP, a few pictures, a few epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from labelled import write_labelled
from tiny import tiny_detector

from jobs.training.config import TrainConfig, parse_train_config
from jobs.training.lists import read_lists
from jobs.training.loop import TrainingJob, TrainingLoop, Worker
from jobs.training.run import load_clip_for
from zsad.checkpoints import save_clip
from zsad.weight_files import digest_of_values

RECIPE = {"text_epochs": 2, "image_epochs": 3, "text_batch_size": 4, "image_lr": 1e-3}


def write_config(folder: Path, **settings: Any) -> Path:
    """Write CLIP, pictures and a YAML file that trains on them."""
    backbone = tiny_detector().backbone
    save_clip(folder / "clip.safetensors", backbone.config, backbone.clip.state_dict())
    write_labelled(folder / "set")
    described = {
        "clip": str(folder / "clip.safetensors"),
        "data": [{"uri": str(folder / "set"), "domain": "industrial"}],
        "output": str(folder / "out"),
        "method_config": {"industrial_blur": [3, 0.5], "levels": [2, 4]},
        "recipe": RECIPE,
        "held_out": 0.4,
    }
    file = folder / "train.yaml"
    file.write_text(yaml.safe_dump(described | settings))
    return file


def job_of(file: Path, *arguments: str) -> TrainingJob:
    """Build what workers get, without Ray."""
    config: TrainConfig = parse_train_config(["--config", str(file), *arguments])
    backbone, clip = load_clip_for(config)
    return TrainingJob(
        config=config,
        lists=read_lists(config),
        backbone=backbone,
        clip_digest=digest_of_values(clip),
    )


def loop_of(job: TrainingJob, told: list[dict[str, Any]] | None = None) -> TrainingLoop:
    """Return the loop of a lone worker in this process."""
    worker = Worker(rank=0, workers=1, device=torch.device("cpu"), loaders=0)
    return TrainingLoop(job, worker, (told if told is not None else []).append)
