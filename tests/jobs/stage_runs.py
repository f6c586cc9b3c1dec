"""Pictures and settings for tests of the stages."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from PIL import Image
from torch import Tensor

from io_adapters.scan import FileRef, Kind, ScanRef
from jobs.dicom_results import DicomSettings
from jobs.publishing import PublisherSettings
from jobs.rows import Batch, Meta
from jobs.scoring import ScorerSettings
from jobs.stages import StageSettings
from jobs.watch import Watch
from zsad.checkpoints import load_checkpoint
from zsad.detectors import Domain, PatchScores, ScoreRule, score_rule

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it

META = {
    "class_name": "nut",
    "domain": "industrial",
    "plane": "acquired",
    "window": "auto",
    "crop": "none",
    "fingerprint": "f",
}


def image_ref(uri: str, number: int, size: int = 1000) -> ScanRef:
    """Return a ref of an image that may not be there."""
    name = f"image-{number}"
    file = FileRef(uri=uri, size=size, version="1")
    return ScanRef(kind=Kind.IMAGE, uri=uri, files=(file,), scan_id=name, study_id=name, label=name)


def pictures(folder: Path, count: int) -> Iterator[tuple[ScanRef, Meta]]:
    """Yield pictures of noise in several sizes; each is drawn when it is asked for."""
    folder.mkdir(exist_ok=True)
    for n in range(count):
        path = folder / f"{n}.png"
        pixels = np.random.default_rng(n).integers(0, 255, (20 + n % 3, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        yield image_ref(str(path), n, path.stat().st_size), META


def stage_settings(checkpoint: Path, output: Path) -> StageSettings:
    """Return settings without DICOM results, and with little patience."""
    return StageSettings(
        scorer=ScorerSettings(
            checkpoint=str(checkpoint), clip=None, precision="fp32", batch_size=8
        ),
        publisher=PublisherSettings(
            rule=score_rule(load_checkpoint(checkpoint)),
            output=str(output),
            dicom=DicomSettings(outputs=(), method="aaclip", model_digest="0", seed="0"),
        ),
        no_progress_s=120,
    )


@dataclass(frozen=True, slots=True)
class DeadlyRule:
    """A detector's rule that a picture of one height kills its process with."""

    rule: ScoreRule
    deadly_height: int

    @property
    def heat(self) -> tuple[float, float]:
        return self.rule.heat

    def render(self, maps: Tensor, size: tuple[int, int], domain: Domain) -> Tensor:
        if size[0] == self.deadly_height:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.rule.render(maps, size, domain)

    def slice_scores(self, scores: PatchScores, domain: Domain) -> Tensor:
        return self.rule.slice_scores(scores, domain)


class NotingWatch(Watch):
    """Notes which stage ended a block on which machine; scoring waits for what is to be seen."""

    PATIENCE_S = 60.0

    def __init__(self, *, unpublished: int = 10**9, machines: int = 1) -> None:
        """Start watching.

        Args:
            unpublished: how many blocks may be scored before scoring waits for publishing.
            machines: how many there have to be that score.
        """
        super().__init__()
        self.unpublished, self.machines = unpublished, machines
        self.notes: Any = ray.remote(_Notes).options(num_cpus=0).remote()

    @contextmanager
    def over(self, stage: str, batch: Batch) -> Iterator[Batch]:
        with super().over(stage, batch) as watched:
            yield watched
        ray.get(self.notes.add.remote(stage, ray.get_runtime_context().get_node_id()))
        deadline = time.monotonic() + self.PATIENCE_S
        while stage == "score" and not self._is_seen():
            if time.monotonic() > deadline:
                ray.get(self.notes.add.remote("waited in vain", ""))
                return
            time.sleep(0.1)

    def nodes(self, stage: str) -> list[str]:
        """Return the machine of each block that a stage ended."""
        found: list[str] = ray.get(self.notes.of.remote(stage))
        return found

    def _is_seen(self) -> bool:
        scored, published = self.nodes("score"), self.nodes("publish")
        return len(scored) - len(published) <= self.unpublished and (
            len(set(scored)) >= self.machines
        )


class _Notes:
    def __init__(self) -> None:
        self.nodes: dict[str, list[str]] = defaultdict(list)

    def add(self, stage: str, node: str) -> None:
        self.nodes[stage].append(node)

    def of(self, stage: str) -> list[str]:
        return self.nodes[stage]


def scores_of(outcomes: list[dict[str, Any]]) -> dict[str, float]:
    """Return the scores of scans, all of which must have one."""
    assert all("record" in outcome for outcome in outcomes), outcomes
    return {outcome["record"]["scan_id"]: outcome["record"]["score"] for outcome in outcomes}
