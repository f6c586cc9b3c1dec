"""A scoring run from its plan to its report: resume, score, reconcile, finish."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import ray
from ray.exceptions import RayError

from io_adapters import results
from io_adapters.scan import Failure, Stage
from io_adapters.sending import Sender
from jobs.cluster import RunError, connect
from jobs.config import ScoreConfig
from jobs.dicom_results import DicomSettings
from jobs.plan import Plan
from jobs.progress import Progress
from jobs.scoring import ScorerSettings, failure_from
from jobs.settings import ConfigError
from jobs.stages import run_stages
from zsad.checkpoints import Checkpoint
from zsad.detectors import DETECTORS

PACKAGES = ("ray", "torch", "open_clip_torch", "numpy", "pydicom", "highdicom", "nibabel")


class Run:
    """One run: what it committed and what failed, growing until `finish`."""

    def __init__(self, config: ScoreConfig, model: Checkpoint, plan: Plan) -> None:
        """Find what earlier runs left in the output folder.

        Raises:
            ConfigError: it holds results of another model or other settings.
        """
        earlier = results.read_run(config.output)
        if earlier and earlier["score_settings"] != plan.settings:
            changed = sorted(
                name
                for name, value in plan.settings.items()
                if earlier["score_settings"].get(name) != value
            )
            raise ConfigError(
                f"--output {config.output} holds results with another {', '.join(changed)}: "
                "choose another folder, or remove that one"
            )
        self.config, self.model, self.plan = config, model, plan
        committed = results.committed_scans(config.output)
        self.todo, self.records = [], []
        for ref, meta in plan.scans:
            record = committed.get(ref.scan_id, {})
            if record.get("fingerprint") == meta["fingerprint"]:
                self.records.append(record)
            else:
                self.todo.append((ref, meta))
        self.resumed = len(self.records)
        self.failures: list[Failure] = list(plan.failures)
        self.started = datetime.now(UTC)
        self.seconds = 0.0
        self.slices_per_second: float | None = None
        print(
            f"found {len(plan.scans)} scans, {self.resumed} of them scored before, "
            f"and {len(self.failures)} unusable inputs",
            flush=True,
        )

    def score(self) -> None:
        """Score and commit what is not yet committed; send what is not yet sent.

        Raises:
            RunError: Ray lost the run.
        """
        results.write_run(self.config.output, self._summary())
        with Sender(self.config.output, self.config.send_to) as sender:
            for record in self.records:
                sender.add(record)  # what did not arrive last time
            if self.todo:
                self._score(sender)
            self.failures += sender.finish()

    def _score(self, sender: Sender) -> None:
        started = time.monotonic()
        try:
            self._stream(sender)
        except RayError as error:
            raise RunError(
                f"Ray ended the run ({type(error).__name__}) after {len(self.records)} of "
                f"{len(self.plan.scans)} scans; the same command goes on from there. Ray's logs "
                "are in its temporary folder under session_latest/logs"
            ) from error
        finally:
            self.seconds = time.monotonic() - started

    def _stream(self, sender: Sender) -> None:
        print("starting Ray and loading the model", flush=True)
        connect()
        progress = Progress(len(self.todo))
        open_ends = {ref.scan_id: ref for ref, _ in self.todo}
        refs, metas = zip(*self.todo, strict=True)
        for outcome in run_stages(refs, metas, self._scorer()):
            if record := outcome.get("record"):
                self.records.append(record)
                sender.add(record)
                progress.add(slices=record["n_scored"], failed=False)
            else:
                self.failures.append(failure_from(outcome["failure"]))
                progress.add(slices=0, failed=True)
            open_ends.pop((record or outcome["failure"])["scan_id"], None)
        self.slices_per_second = progress.slices_per_second
        self.failures += [
            Failure(
                uri=ref.uri,
                stage=Stage.SCORE,
                error_class="LostScan",
                message="its worker ended without a word; run again to try it once more",
                scan_id=ref.scan_id,
            )
            for ref in open_ends.values()
        ]

    def finish(self) -> str:
        """Write tables, report and `run.json`; return the URI of the report."""
        summary = self._summary() | {
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "slices_per_second": self.slices_per_second,
            "counts": {
                "listed": len(self.plan.scans) + len(self.plan.failures),
                "committed": len(self.records),
                "resumed": self.resumed,
                "failed": self.failed,
                "unsent": len(self.failures) - self.failed,
                "ignored": dict(self.plan.ignored),
            },
        }
        report = results.write_tables(self.config.output, summary, self.records, self.failures)
        results.write_run(self.config.output, summary)
        return report

    @property
    def failed(self) -> int:
        """How many inputs have no result; one whose result was not sent has one."""
        return sum(failure.stage is not Stage.SEND for failure in self.failures)

    def _summary(self) -> dict[str, Any]:
        packages = {name: version(name) for name in PACKAGES}
        return {
            "settings": self.config.to_dict(),
            "score_settings": self.plan.settings,
            "model": describe_model(self.model),
            "versions": {"python": platform.python_version(), **packages},
            "started": self.started.isoformat(timespec="seconds"),
        }

    def _scorer(self) -> ScorerSettings:
        found = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        cpus = [count for count in found if count] or [1]
        gpus = int(ray.cluster_resources().get("GPU", 0))
        workers = self.config.workers or gpus or len(cpus)
        workers = min(workers, gpus) if gpus else workers  # each has a GPU to itself
        return ScorerSettings(
            checkpoint=self.config.checkpoint,
            clip=self.config.clip,
            precision=self.config.precision,
            batch_size=self.config.batch_size,
            workers=workers,
            threads=max(1, min(cpus) * len(cpus) // max(workers, len(cpus))),
            output=self.config.output,
            dicom=DicomSettings(
                outputs=self.config.dicom_output,
                method=self.model.method,
                model_digest=self.model.digest,
                seed=self._seed(),
            ),
        )

    def _seed(self) -> str:
        """Return a digest of what results depend on; which of them are wanted does not matter."""
        settings = self.plan.settings | {"dicom_output": None}
        described = json.dumps(settings, sort_keys=True, default=str)
        return hashlib.sha256(described.encode()).hexdigest()


def check_method(wanted: str | None, model: Checkpoint, path: str) -> None:
    """Raise ConfigError if `--detector` names another method than the checkpoint's."""
    if wanted not in (None, model.method):
        raise ConfigError(f"--detector {wanted}: {path} holds {model.method}")


def describe_model(model: Checkpoint) -> dict[str, Any]:
    """Return what `run.json` and the report say of the model."""
    architecture = model.backbone.architecture
    return {
        "method": model.method,
        "backbone": architecture if isinstance(architecture, str) else "embedded CLIP",
        "activation": model.backbone.activation,
        "image_size": model.backbone.image_size,
        "digest": model.digest,
        "heat": DETECTORS[model.method].read_config(model.method_config).heat,
        "note": model.note,
        "training": model.training,
    }
