"""The training loop, as each worker runs it: stages, epochs, steps; state after every epoch."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from jobs.progress import EVERY_S
from jobs.training.batches import HeldOutPictures, Pictures, TrainingPictures, epoch_batches, load
from jobs.training.config import TrainConfig
from jobs.training.evaluation import HeldOutResult, gathered, judge, score_held_out
from jobs.training.lists import TrainingLists
from jobs.training.state import TrainingState, load_state, save_state
from zsad.backbone import Backbone, BackboneConfig, load_clip
from zsad.detectors import DETECTORS
from zsad.training import TRAINERS, Stage, TrainingBatch

SCORED_AT_ONCE = 8
Tell = Callable[[dict[str, Any]], None]
"""Takes what a person or train.json should know."""


class TrainingError(Exception):
    """Training cannot go on; the message says where it stands and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """Who this process is among the workers."""

    rank: int
    workers: int
    device: torch.device
    loaders: int
    """Processes that make batches in the background."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingJob:
    """What all workers must know."""

    config: TrainConfig
    lists: TrainingLists
    backbone: BackboneConfig
    clip_digest: str


class TrainingLoop:
    """A run, from wherever its state says it stands."""

    def __init__(self, job: TrainingJob, worker: Worker, tell: Tell) -> None:
        """Build the detector and decode the images.

        Raises:
            WeightsError: the CLIP is not what it was when the job began.
            StateError: the state cannot be gone on from.
            BrokenImageError: an image cannot be read.
        """
        config = job.config
        self.job, self.worker, self.tell, self.config = job, worker, tell, config
        self.detector, self.stages = build(job, worker)
        self.state = self._shared_state()
        tell({"phase": "reading the images"})
        self.training = Pictures(job.lists.training)
        held_out = job.lists.held_out[worker.rank :: worker.workers]
        self.held_out = HeldOutPictures(Pictures(held_out), job.backbone.image_size)

    def run(self) -> dict[str, Any]:
        """Run what is left of all stages; return `weights` and `epochs`.

        The weights are in the safetensors format: Ray Train lets no tensor through.
        """
        for stage, trained in zip(self.stages, self.state.finished, strict=False):
            stage.trained.load_state_dict(trained)
        for number in range(self.state.stage, len(self.stages)):
            self._run_stage(number)
        state = self.detector.state_dict()
        tensors = {name: t.cpu() for name, t in state.items() if not name.startswith("backbone.")}
        return {"weights": safetensors.torch.save(tensors), "epochs": self.state.epochs}

    def _run_stage(self, number: int) -> None:
        stage, state = self.stages[number], self.state
        last = number == len(self.stages) - 1
        if state.trained is not None:
            stage.trained.load_state_dict(state.trained)
        stage.prepare(self.job.lists.class_names)
        stepper = Stepper(stage, self.worker, bf16=self.config.precision == "bf16")
        stepper.restore(state)
        for epoch in range(state.epoch, stage.epochs):
            started = time.monotonic()
            record = self._run_epoch(number, epoch, stepper)
            trained = _on_cpu(stage.trained.state_dict())
            if not all(torch.isfinite(tensor).all() for tensor in trained.values()):
                raise self._diverged(stage, epoch, "the weights are not finite after its last step")
            if last and self.job.lists.held_out:
                result = self._evaluate(stage, epoch)
                record["held_out"] = result.to_dict()
                if _is_best(record, state.epochs):
                    state.best = trained
            record["seconds"] = round(time.monotonic() - started, 2)
            state.trained, state.epoch = trained, epoch + 1
            state.optimiser, state.scheduler = stepper.state()
            state.epochs.append(record)
            if self.worker.rank == 0:
                save_state(self.config.output, state)
            self.tell({"epoch": record})
        result_of_stage = state.best or state.trained or {}
        stage.trained.load_state_dict(result_of_stage)
        state.next_stage(result_of_stage)

    def _run_epoch(self, number: int, epoch: int, stepper: Stepper) -> dict[str, Any]:
        """Train for an epoch; return its record."""
        stage, worker, seed = self.stages[number], self.worker, self.config.seed
        torch.manual_seed(_mixed(seed, number, epoch, worker.rank))
        batches = epoch_batches(
            len(self.job.lists.training),
            batch_size=stage.batch_size,
            seed=seed,
            stage=number,
            epoch=epoch,
            rank=worker.rank,
            workers=worker.workers,
        )
        pictures = TrainingPictures(
            self.training,
            self.job.backbone,
            seed=seed,
            reach=stage.augmentation,
            unmixed=self.job.lists.unmixed,
            masks_by_area=stage.masks_by_area,
        )
        meter = Meter(worker)
        for step, batch in enumerate(load(pictures, batches, worker.loaders), start=1):
            terms = stepper.step(batch)
            if not math.isfinite(loss := terms["loss"].item()):
                raise self._diverged(stage, epoch, f"the loss is {loss} at step {step}")
            meter.add(terms, len(batch.labels))
            if meter.due() or step == len(batches):
                left = (stage.epochs - epoch) * len(batches) - step
                place = {"stage": stage.name, "epoch": epoch + 1, "epochs": stage.epochs}
                steps = {"step": step, "steps": len(batches)}
                self.tell({"progress": place | steps | meter.recent(steps_left=left)})
        return {"stage": stage.name, "epoch": epoch + 1, "steps": len(batches), **meter.whole()}

    def _evaluate(self, stage: Stage, epoch: int) -> HeldOutResult:
        starts = range(0, len(self.held_out), SCORED_AT_ONCE)
        rows = [
            list(range(start, min(start + SCORED_AT_ONCE, len(self.held_out)))) for start in starts
        ]
        batches = load(self.held_out, rows, self.worker.loaders)
        bf16 = self.config.precision == "bf16"
        try:
            found = score_held_out(self.detector, batches, device=self.worker.device, bf16=bf16)
        except ValueError as error:
            raise self._diverged(stage, epoch, f"held-out images: {error}") from error
        return judge(self.detector, gathered(found, self.worker.workers))

    def _shared_state(self) -> TrainingState:
        """Return the state as the first worker sees it: the others may not share its disk."""
        states = [load_state(self.config.output) if self.worker.rank == 0 else None]
        if self.worker.workers > 1:
            dist.broadcast_object_list(states, src=0)
        return states[0] or TrainingState()

    def _diverged(self, stage: Stage, epoch: int, what: str) -> TrainingError:
        return TrainingError(
            f"{stage.name}, epoch {epoch + 1}: {what}. The state of epoch {epoch} is kept; train "
            "into another folder with a lower rate in `recipe`, or in fp32"
        )


def build(job: TrainingJob, worker: Worker) -> tuple[Any, list[Stage]]:
    """Build a detector with new weights, the same on all workers, and its stages.

    Raises:
        TrainingError: the method cannot be trained so.
        WeightsError: the CLIP is missing, broken, or another than the job began with.
    """
    config, trainer = job.config, TRAINERS[job.config.method]
    _, weights = load_clip(config.clip, job.backbone, digest=job.clip_digest)
    torch.manual_seed(config.seed)
    try:
        method = trainer.method_config(job.backbone, config.method_config)
        detector = DETECTORS[config.method].build(Backbone(job.backbone, weights), method)
        stages = trainer.stages(detector.to(worker.device), trainer.read_recipe(config.recipe))
    except ValueError as error:
        raise TrainingError(f"method_config or recipe: {error}") from error
    for stage in stages:
        if stage.batch_size % worker.workers:
            raise TrainingError(
                f"recipe: a batch of {stage.batch_size} in {stage.name} cannot be shared evenly by "
                f"{worker.workers} workers"
            )
    return detector, stages


class Stepper:
    """Takes the optimisation steps of one stage."""

    def __init__(self, stage: Stage, worker: Worker, *, bf16: bool) -> None:
        self.stage, self.device, self.bf16 = stage, worker.device, bf16
        self.module: nn.Module = stage
        if worker.workers > 1:
            self.module = DistributedDataParallel(stage, broadcast_buffers=False)
        self.optimiser = stage.optimiser()
        self.scheduler = stage.scheduler(self.optimiser)

    def restore(self, state: TrainingState) -> None:
        """Go on from a stage's earlier epochs, if there are any."""
        if state.optimiser is not None and state.scheduler is not None:
            self.optimiser.load_state_dict(state.optimiser)
            self.scheduler.load_state_dict(state.scheduler)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what `restore` needs of optimiser and scheduler, apart from what they go on to."""
        return _on_cpu(self.optimiser.state_dict()), copy.deepcopy(self.scheduler.state_dict())

    def step(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Learn from a batch; return the loss and its terms. Nothing is learnt from NaN."""
        batch = batch._replace(
            images=batch.images.to(self.device),
            masks=batch.masks.to(self.device),
            labels=batch.labels.to(self.device),
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            terms: dict[str, Tensor] = self.module(batch)
        if terms["loss"].isfinite():
            self.optimiser.zero_grad()
            terms["loss"].backward()
            self.optimiser.step()
            self.scheduler.step()
        return {name: value.detach() for name, value in terms.items()}


class Meter:
    """Means of the loss terms, and how fast images go through, over an epoch and of late."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.started = self.reported = time.monotonic()
        self.sums: dict[str, Tensor] = {}
        self.at_report: dict[str, Tensor] = {}
        self.images = self.steps = self.images_at_report = 0

    def add(self, terms: dict[str, Tensor], images: int) -> None:
        """Count a step of this worker."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + images * value
        self.images, self.steps = self.images + images, self.steps + 1

    def due(self) -> bool:
        """Tell whether a person should hear something again."""
        return time.monotonic() - self.reported >= EVERY_S

    def recent(self, *, steps_left: int) -> dict[str, Any]:
        """Return this worker's mean terms since the last report, the rate, and the time left."""
        now, count = time.monotonic(), self.images - self.images_at_report
        losses = {
            name: (total - self.at_report.get(name, 0)).item() / count
            for name, total in self.sums.items()
        }
        seconds = now - self.started
        self.reported, self.at_report, self.images_at_report = now, dict(self.sums), self.images
        return {
            "losses": losses,
            "images_per_second": self.images * self.worker.workers / seconds,
            "seconds_left": seconds / self.steps * steps_left,
        }

    def whole(self) -> dict[str, Any]:
        """Return the epoch's numbers, over all workers."""
        sums = torch.stack(list(self.sums.values()))
        if self.worker.workers > 1:
            dist.all_reduce(sums)
        images = self.images * self.worker.workers
        seconds = time.monotonic() - self.started
        return {
            "images": images,
            "losses": dict(zip(self.sums, (sums / images).tolist(), strict=True)),
            "images_per_second": round(images / seconds, 2),
        }


def _is_best(record: dict[str, Any], earlier: list[dict[str, Any]]) -> bool:
    qualities = [one["held_out"]["quality"] for one in earlier if "held_out" in one]
    return bool(record["held_out"]["quality"] > max(qualities, default=-1.0))


def _mixed(*numbers: int) -> int:
    """Return one seed made of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _on_cpu(value: Any) -> Any:
    """Copy a tree of dicts, lists and tensors, so that training does not go on changing it."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_on_cpu(item) for item in value]
    return value
