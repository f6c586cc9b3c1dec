"""An evaluation on Ray Data: labelled images → read → score and count → one small row an image.

What crosses the cluster is an image's scores and the counts of its pixels; counts of all images
of a class add up to its metrics, so no map is ever kept.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy, DataContext

from io_adapters.datasets import LabelledImage, read_image, read_mask
from io_adapters.scan import Failure, Kind, ScanRef, Stage
from jobs.evaluation.config import EvaluateConfig, ScoreRule
from jobs.evaluation.published import PUBLISHED, Judged, Published
from jobs.evaluation.table import Row
from jobs.model import Model
from jobs.outcomes import failure_from, failure_json
from jobs.rows import IMAGES_PER_BLOCK
from zsad.checkpoints import Checkpoint
from zsad.detectors import Domain
from zsad.metrics import PixelCounts, rank_images
from zsad.preprocess import squash_mask

NO_IMAGE = np.zeros((0, 0, 3), dtype=np.uint8)
NO_MASK = np.zeros((0, 0), dtype=bool)
Resize = Callable[[np.ndarray], np.ndarray]
"""A mask of the image's size → one of the model's."""


@dataclass(slots=True)
class Tally:
    """What is known of a class so far."""

    judged: list[Judged] = field(default_factory=list)
    anomalous: list[bool] = field(default_factory=list)
    pixels: PixelCounts = field(default_factory=PixelCounts)

    def row(self, name: str, domain: Domain, rule: Published | None) -> Row:
        """Return the metrics of the class; without a rule, scores are the checkpoint's."""
        scores = [judged.score for judged in self.judged]
        if rule is not None:
            scores = rule.scores(self.judged, domain)
        images, pixels = rank_images(scores, self.anomalous), self.pixels.curve()
        metrics = {
            "image_auroc": images.auroc(),
            "image_ap": images.average_precision(),
            "image_f1_max": images.f1_max(),
            "pixel_auroc": pixels.auroc(),
            "pixel_ap": pixels.average_precision(),
            "pixel_f1_max": pixels.f1_max(),
            "pixel_aupro": self.pixels.aupro(),
        }
        rounded = {n: None if value is None else round(value, 6) for n, value in metrics.items()}
        return Row(name, len(self.judged), sum(self.anomalous), rounded)


class Evaluation:
    """One evaluation: the tallies of its classes and what failed, growing while it runs."""

    def __init__(self, config: EvaluateConfig, model: Checkpoint) -> None:
        self.config, self.model = config, model
        self.tallies: dict[str, Tally] = {}
        self.failures: list[Failure] = []

    def run(self, items: Sequence[LabelledImage]) -> Iterator[bool]:
        """Evaluate images on the connected Ray cluster; yield for each whether it went well."""
        for row in _stages(self.config, self.model, items):
            item, outcome = items[row["index"]], json.loads(row["outcome"])
            if failure := outcome.get("failure"):
                self.failures.append(failure_from(failure))
            else:
                tally = self.tallies.setdefault(item.category or item.class_name, Tally())
                tally.judged.append(Judged(**outcome))
                tally.anomalous.append(item.anomalous)
                if row["counts"]:
                    tally.pixels.merge(PixelCounts.from_bytes(row["counts"]))
            yield not failure

    def rows(self) -> list[Row]:
        """Return the table, a row a class, by name."""
        rule = _published_rule(self.config, self.model.method)
        return [
            tally.row(name, self.config.domain, rule)
            for name, tally in sorted(self.tallies.items())
        ]


def _published_rule(config: EvaluateConfig, method: str) -> Published | None:
    return PUBLISHED[method] if config.scores is ScoreRule.PUBLISHED else None


def _stages(
    config: EvaluateConfig, model: Checkpoint, items: Sequence[LabelledImage]
) -> Iterator[dict[str, Any]]:
    """Yield a row an image, as they end: index, outcome (JSON) and counts (bytes)."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    context.max_errored_blocks = 0  # metrics of a part of a set would pass for the whole's
    gpus = int(ray.cluster_resources().get("GPU", 0))
    cpus = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    rule = _published_rule(config, model.method)
    resize = (
        partial(squash_mask, size=model.backbone.image_size, by_area=rule.masks_by_area)
        if rule
        else None
    )
    judged = (
        ray.data.from_blocks(list(_blocks(items)))
        .map(partial(read_row, resize=resize))
        .map_batches(
            Evaluator,
            fn_constructor_args=(config, min((n for n in cpus if n), default=1)),
            batch_size=IMAGES_PER_BLOCK,
            compute=ActorPoolStrategy(min_size=1, max_size=gpus or sum(n > 0 for n in cpus)),
            num_gpus=1 if gpus else None,
        )
    )
    for batch in judged.iter_batches(batch_size=None, batch_format="numpy"):
        columns = (batch["index"].tolist(), batch["outcome"], batch["counts"])
        for index, outcome, counts in zip(*columns, strict=True):
            yield {"index": index, "outcome": outcome, "counts": counts}


def _blocks(items: Sequence[LabelledImage]) -> Iterator[pa.Table]:
    rows = [
        {"index": index, "item": json.dumps(dataclasses.asdict(item))}
        for index, item in enumerate(items)
    ]
    for start in range(0, len(rows), IMAGES_PER_BLOCK):
        yield pa.Table.from_pylist(rows[start : start + IMAGES_PER_BLOCK])


def read_row(row: Mapping[str, Any], *, resize: Resize | None) -> dict[str, Any]:
    """Read one image: {"index", "item"} → the same and {"image", "mask", "failure"}.

    `image` is uint8 (H, W, 3), `mask` bool (H, W), or resized, where that is asked for, or (0, 0)
    where nothing is known of single pixels; `failure` is empty or an outcome.
    """
    item = LabelledImage(**json.loads(row["item"]))
    try:
        image, mask = read_image(item), NO_MASK
        if item.has_pixel_labels:
            mask = read_mask(item, image.shape[:2])
            mask = resize(mask) if resize else mask
        return {**row, "image": image, "mask": mask, "failure": ""}
    except Exception as error:
        ref = ScanRef(
            kind=Kind.IMAGE, uri=item.image, files=(), scan_id="", study_id="", label=item.image
        )
        failure = failure_json(ref, Stage.READ, error)
        return {**row, "image": NO_IMAGE, "mask": NO_MASK, "failure": failure}


class Evaluator:
    """Scores images and counts their pixels; one per device, built once per worker process."""

    def __init__(self, config: EvaluateConfig, threads: int) -> None:
        self.config = config
        self.model = Model.load(
            config.checkpoint, clip=config.clip, precision=config.precision, threads=threads
        )

    @torch.inference_mode()
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Take rows of `read_row`; return `index`, `outcome` and `counts` of each."""
        outcomes = [str(failure) for failure in batch["failure"]]
        counts = [b""] * len(outcomes)
        rows = [row for row, failure in enumerate(outcomes) if not failure]
        if rows:
            items = [LabelledImage(**json.loads(batch["item"][row])) for row in rows]
            scores = self.model.score(
                [batch["image"][row] for row in rows], [item.class_name for item in items]
            )
            ranked = self.model.detector.slice_scores(scores, self.config.domain)
            for n, row in enumerate(rows):
                rendered = self._render(scores.maps[n : n + 1], batch["image"][row].shape[:2])
                judged = Judged(
                    score=float(ranked[n]),
                    image=float(scores.image[n]),
                    lowest=float(rendered.min()),
                    highest=float(rendered.max()),
                )
                outcomes[row] = json.dumps(dataclasses.asdict(judged))
                if items[n].has_pixel_labels:
                    pixels = PixelCounts()
                    pixels.add(rendered, batch["mask"][row])
                    counts[row] = pixels.to_bytes()
        return {"index": batch["index"].tolist(), "outcome": outcomes, "counts": counts}

    def _render(self, maps: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
        """Return the anomaly map (H, W) of one patch map (1, h, w), at the size of its mask."""
        if self.config.scores is ScoreRule.PUBLISHED:
            size = (self.model.side, self.model.side)
        rendered: np.ndarray = self.model.detector.render(maps, size, self.config.domain)[0].numpy()
        return rendered
