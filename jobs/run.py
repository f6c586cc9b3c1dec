"""A scoring run from its plan to its report: resume, score, reconcile, finish."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from ray.exceptions import RayError

from io_adapters import results, storage
from io_adapters.dicomweb_uri import is_pacs
from io_adapters.scan import Failure, ScanRef, Stage
from io_adapters.sending import Sender
from jobs.cluster import RunError, connect, machines
from jobs.config import ScoreConfig
from jobs.dicom_results import DicomSettings
from jobs.ledger import Ledger, State
from jobs.outcomes import failure_from
from jobs.placement import place
from jobs.plan import Plan
from jobs.progress import Progress
from jobs.publishing import PublisherSettings
from jobs.scoring import ScorerSettings
from jobs.settings import ConfigError
from jobs.stages import StageSettings, run_stages
from zsad.checkpoints import Checkpoint
from zsad.detectors import DETECTORS, score_rule

HAVE_RESULTS = (State.EARLIER, State.KEPT, State.SCORED)
PACKAGES = ("ray", "torch", "open_clip_torch", "numpy", "pydicom", "highdicom", "nibabel")


class Run:
    """One run: scores what its plan left to do, and tells of all that there is."""

    def __init__(self, config: ScoreConfig, model: Checkpoint, plan: Plan, ledger: Ledger) -> None:
        self.config, self.model, self.plan, self.ledger = config, model, plan, ledger
        self.started = datetime.now(UTC)
        self.seconds = 0.0
        self.slices_per_second: float | None = None
        older = f"; {plan.left_out} older ones were left out" if plan.left_out else ""
        print(
            f"found {plan.n_scans} scans, {ledger.count(State.KEPT)} of them scored before, "
            f"and {plan.unusable.total()} unusable inputs{older}",
            flush=True,
        )

    @property
    def scored(self) -> int:
        """How many of the run's scans have a result."""
        return self.ledger.count(State.KEPT, State.SCORED)

    @property
    def failed(self) -> int:
        """How many of its inputs have none."""
        return self.ledger.count_failures(of_this_run=True, sending=False)

    @property
    def unsent(self) -> int:
        """How many results did not reach a PACS."""
        return self.ledger.count_failures(of_this_run=True, sending=True)

    def score(self) -> None:
        """Score and commit what is not yet committed; send what is not yet sent.

        Raises:
            RunError: Ray lost the run.
        """
        results.write_run(self.config.output, self._summary())
        with Sender(self.config.output, self.config.send_to) as sender:
            if self.config.send_to:
                for record in self.ledger.records(State.KEPT):
                    sender.add(record)  # what did not arrive last time
            if self.ledger.count(State.TODO):
                self._score(sender)
            for failure in sender.finish():
                self.ledger.fail(failure)

    def _score(self, sender: Sender) -> None:
        started = time.monotonic()
        try:
            self._stream(sender)
        except RayError as error:
            raise RunError(
                f"Ray ended the run ({type(error).__name__}) after {self.scored} of "
                f"{self.plan.n_scans} scans; the same command goes on from there. Ray's logs "
                "are in its temporary folder under session_latest/logs"
            ) from error
        finally:
            self.seconds = time.monotonic() - started

    def _stream(self, sender: Sender) -> None:
        print("starting Ray and loading the model", flush=True)
        connect()
        progress = Progress(self.ledger.count(State.TODO))
        slice_flops = self.model.backbone.slice_flops()
        placement = place(machines(), self.config.wanted, slice_flops=slice_flops)
        print(placement.line(), flush=True)
        for outcome in run_stages(self.ledger.todo(), self._stage_settings(), placement):
            if record := outcome.get("record"):
                self.ledger.commit(record)
                sender.add(record)
                progress.add(slices=record["n_scored"], failed=False)
            else:
                self.ledger.fail(failure_from(outcome["failure"]))
                progress.add(slices=0, failed=True)
        self.slices_per_second = progress.slices_per_second
        for ref, _ in self.ledger.todo():
            self.ledger.fail(lost(ref))

    def finish(self) -> list[str]:
        """Write tables, reports and `run.json`; return the URIs of the reports, all of it first."""
        output, ledger = self.config.output, self.ledger
        for record in ledger.records(State.FAILED):
            results.retract_scan(output, record)
        ledger.drop_earlier_failures(self._is_settled)
        summary = self._summary() | {
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "slices_per_second": self.slices_per_second,
            "counts": self._counts(),
        }
        reports = []
        for folder, states in ((output, HAVE_RESULTS), (self._folder(), (State.SCORED,))):
            of_this_run = folder != output
            results.write_tables(
                folder,
                ledger.ranked(*states),
                ledger.studies(*states),
                ledger.failures(of_this_run=of_this_run),
            )
            ranking = ledger.ranking(*states, of_this_run=of_this_run)
            reports.append(results.write_report(folder, summary, ranking, of_this_run=of_this_run))
            results.write_run(folder, summary)
        return reports if ledger.count(State.EARLIER, State.KEPT) else reports[:1]

    def _folder(self) -> str:
        """Return the folder of what this run adds."""
        return storage.join(self.config.output, "runs", f"{self.started:%Y%m%dT%H%M%SZ}")

    def _is_settled(self, uri: str) -> bool:
        """Tell whether this run would have met an input of that URI, were it still there."""
        if self.config.limit is not None or self.config.since is not None:
            return False
        roots = (root for root in self.config.input if not is_pacs(root))  # a query may be narrower
        return any(uri == root or uri.startswith(f"{root.rstrip('/')}/") for root in roots)

    def _counts(self) -> dict[str, Any]:
        return {
            "listed": self.plan.n_scans + self.plan.unusable.total(),
            "committed": self.scored,
            "resumed": self.ledger.count(State.KEPT),
            "failed": self.failed,
            "unsent": self.unsent,
            "ignored": dict(self.plan.ignored),
            "left_out": self.plan.left_out,
            "from_earlier_runs": self.ledger.count(State.EARLIER),
        }

    def _summary(self) -> dict[str, Any]:
        packages = {name: version(name) for name in PACKAGES}
        return {
            "settings": self.config.to_dict(),
            "score_settings": self.plan.settings,
            "model": describe_model(self.model),
            "versions": {"python": platform.python_version(), **packages},
            "started": self.started.isoformat(timespec="seconds"),
        }

    def _stage_settings(self) -> StageSettings:
        return StageSettings(
            scorer=ScorerSettings(
                checkpoint=self.config.checkpoint,
                clip=self.config.clip,
                precision=self.config.precision,
                batch_size=self.config.batch_size,
            ),
            publisher=PublisherSettings(
                rule=score_rule(self.model),
                output=self.config.output,
                dicom=DicomSettings(
                    outputs=self.config.dicom_output,
                    method=self.model.method,
                    model_digest=self.model.digest,
                    seed=self._seed(),
                ),
            ),
            no_progress_s=self.config.no_progress_timeout,
        )

    def _seed(self) -> str:
        """Return a digest of what results depend on; which of them are wanted does not matter."""
        settings = self.plan.settings | {"dicom_output": None}
        described = json.dumps(settings, sort_keys=True, default=str)
        return hashlib.sha256(described.encode()).hexdigest()


def lost(ref: ScanRef) -> Failure:
    """Return the failure of a scan that went in and did not come out."""
    return Failure(
        uri=ref.uri,
        stage=Stage.SCORE,
        error_class="LostScan",
        message="its worker ended without a word; run again to try it once more",
        scan_id=ref.scan_id,
    )


def check_output(config: ScoreConfig, settings: Mapping[str, Any]) -> None:
    """Make sure that results of several models or settings are never mixed.

    Raises:
        ConfigError: the output folder holds results of others.
    """
    earlier = results.read_run(config.output)
    if earlier and earlier["score_settings"] != settings:
        changed = sorted(
            name for name, value in settings.items() if earlier["score_settings"].get(name) != value
        )
        raise ConfigError(
            f"--output {config.output} holds results with another {', '.join(changed)}: "
            "choose another folder, or remove that one"
        )


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
