"""A training run as its driver sees it: check, train, write the result.

OUT/train.json           settings, data, versions, and a record of every epoch
OUT/state.pt             where the run stands, for the next start of the same command
OUT/model.safetensors    the checkpoint, when all is done
"""

from __future__ import annotations

import dataclasses
import json
import platform
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch

from io_adapters import storage
from jobs.cluster import connect
from jobs.settings import ConfigError
from jobs.training.config import TrainConfig
from jobs.training.fit import fit
from jobs.training.lists import TrainingLists, digest_of_list
from jobs.training.loop import TrainingJob
from jobs.training.progress import Progress
from zsad.backbone import OPENAI_ARCHITECTURE, BackboneConfig, StateDict, load_clip
from zsad.calibration import Calibration
from zsad.checkpoints import Checkpoint, save_checkpoint
from zsad.training import TRAINERS
from zsad.weight_files import digest_of_values

PACKAGES = ("ray", "torch", "open_clip_torch", "numpy", "pillow")


class TrainingRun:
    """One run: what earlier starts of the same command left, and what comes of this one."""

    def __init__(self, config: TrainConfig, lists: TrainingLists) -> None:
        """Check the configuration against the CLIP and the output folder.

        Raises:
            ConfigError: a setting does not fit, or the folder holds a run with other settings.
            WeightsError: there is no usable CLIP.
        """
        self.config, self.lists = config, lists
        self.backbone, clip = load_clip_for(config)
        self.clip, self.clip_digest = clip if config.include_clip else None, digest_of_values(clip)
        self.method_config, self.recipe = read_method(config, self.backbone)
        self.checkpoint = storage.join(config.output, "model.safetensors")
        self.record = self._earlier_record() or self._new_record()

    @property
    def finished(self) -> bool:
        """Whether an earlier start has written this very checkpoint."""
        return self.record["written"] == self._wanted() and storage.exists(self.checkpoint)

    def train(self) -> None:
        """Train what is left, and write the checkpoint.

        Raises:
            RunError: the workers failed; what was written stays.
        """
        self._write_record()
        print("starting Ray and the workers", flush=True)
        connect()
        progress = Progress()

        def take(event: dict[str, Any]) -> None:
            progress.show(event)
            if "epoch" in event:
                self.record["epochs"].append(event["epoch"])
                self._write_record()

        job = TrainingJob(
            config=self.config,
            lists=self.lists,
            backbone=self.backbone,
            clip_digest=self.clip_digest,
        )
        result = fit(job, take)
        self.record["epochs"] = result["epochs"]
        self.record["seconds"] = round(sum(one["seconds"] for one in result["epochs"]), 1)
        self.record["chosen"] = chosen_epoch(result["epochs"])
        self._write_checkpoint(safetensors.torch.load(result["weights"]))
        self.record["written"] = self._wanted()
        self._write_record()

    def _earlier_record(self) -> dict[str, Any] | None:
        uri = storage.join(self.config.output, "train.json")
        if not storage.exists(uri):
            return None
        try:
            earlier: dict[str, Any] = json.loads(storage.read_bytes(uri))
            there = earlier["settings"]
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{uri} is no record of a training: choose another folder") from error
        if changed := differences(there, self._settings()):
            raise ConfigError(
                f"output {self.config.output} holds a run with other settings: "
                f"{'; '.join(changed)}. Choose another folder, or remove that one"
            )
        return earlier

    def _new_record(self) -> dict[str, Any]:
        return {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "written": None,
            "settings": self._settings(),
            "data": self.lists.provenance,
            "images": {
                "training": len(self.lists.training),
                "held_out": len(self.lists.held_out),
            },
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in PACKAGES},
            },
            "epochs": [],
        }

    def _settings(self) -> dict[str, Any]:
        """Return what the trained weights depend on: a run with others is another run."""
        config, lists = self.config, self.lists
        unmixed = [item for item in lists.training if item.image in lists.unmixed]
        described = {
            "method": config.method,
            "clip": self.clip_digest,
            "backbone": self.backbone.to_dict(),
            "method_config": dataclasses.asdict(self.method_config),
            "recipe": dataclasses.asdict(self.recipe),
            "training_images": digest_of_list(lists.training),
            "held_out_images": digest_of_list(lists.held_out),
            "unmixed_images": digest_of_list(unmixed),
            "shots": config.shots,
            "seed": config.seed,
            "workers": config.workers,
            "gpus_per_worker": config.gpus_per_worker,
            "precision": config.precision,
        }
        plain: dict[str, Any] = json.loads(json.dumps(described))
        return plain

    def _wanted(self) -> dict[str, Any]:
        """Return what the checkpoint is to hold beside the weights."""
        return {"note": self.config.note, "include_clip": self.config.include_clip}

    def _write_record(self) -> None:
        content = json.dumps(self.record, indent=1, allow_nan=False).encode()
        storage.put_bytes(storage.join(self.config.output, "train.json"), content)

    def _write_checkpoint(self, tensors: dict[str, Any]) -> None:
        chosen, config = self.record["chosen"], self.method_config
        if held_out := chosen["held_out"]:
            config = Calibration.from_dict(held_out["calibration"]).applied_to(config)
        checkpoint = Checkpoint(
            method=self.config.method,
            backbone=self.backbone,
            method_config=dataclasses.asdict(config),
            tensors=tensors,
            clip=self.clip,
            clip_digest=self.clip_digest,
            note=self.config.note,
            training={
                "data": self.record["data"],
                "images": self.record["images"],
                "recipe": self.record["settings"]["recipe"],
                "shots": self.config.shots,
                "seed": self.config.seed,
                "precision": self.config.precision,
                "chosen": chosen,
                "versions": self.record["versions"],
            },
        )
        with tempfile.TemporaryDirectory(prefix="zsad-") as folder:
            path = Path(folder) / "model.safetensors"
            save_checkpoint(path, checkpoint)
            storage.put_bytes(self.checkpoint, path.read_bytes())


def load_clip_for(config: TrainConfig) -> tuple[BackboneConfig, StateDict]:
    """Load the CLIP, and say how it is used.

    Raises:
        ConfigError: it cannot be used as the configuration says.
        WeightsError: it is missing or broken.
    """
    named, weights = load_clip(config.clip)
    official = named.architecture == OPENAI_ARCHITECTURE
    try:
        used = replace(
            named,
            activation=config.activation or ("gelu" if official else named.activation),
            image_size=config.image_size or (518 if official else named.image_size),
            position_resize=TRAINERS[config.method].position_resize,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return used, weights


def read_method(config: TrainConfig, backbone: BackboneConfig) -> tuple[Any, Any]:
    """Return the method's configuration and its recipe.

    Raises:
        ConfigError: a setting is unknown or impossible.
    """
    trainer = TRAINERS[config.method]
    try:
        method_config = trainer.method_config(backbone, config.method_config)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"method_config: {error}") from error
    try:
        return method_config, trainer.read_recipe(config.recipe)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"recipe: {error}") from error


def chosen_epoch(epochs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return which epoch of the last stage the checkpoint is of, and why."""
    stage = epochs[-1]["stage"]
    last_stage = [record for record in epochs if record["stage"] == stage]
    judged = [record for record in last_stage if "held_out" in record]
    best = max(judged, key=lambda record: record["held_out"]["quality"]) if judged else epochs[-1]
    return {
        "stage": stage,
        "epoch": best["epoch"],
        "of": len(last_stage),
        "by": "the best of the held-out images" if judged else "the last, nothing was held out",
        "held_out": best.get("held_out"),
    }


def differences(there: dict[str, Any], here: dict[str, Any], prefix: str = "") -> list[str]:
    """Name the settings that two runs differ in, with both values."""
    found = []
    for name in sorted(set(there) | set(here)):
        old, new = there.get(name), here.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} {_short(old)} there, {_short(new)} here")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:36]}…"
