"""The configuration of a scoring run: a command line, a YAML file, or both, validated here."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from io_adapters.dicom_output.findings import DicomOutput
from io_adapters.dicomweb_uri import is_pacs, parse_query, scheme_of, shown
from io_adapters.foreground import Crop
from io_adapters.scan import Kind, Plane
from io_adapters.storage import absolute
from io_adapters.windows import AUTO, CT_PRESETS, parse_choice
from jobs.placement import Wanted
from jobs.settings import ConfigError, gather, rooted
from jobs.since import parse_since
from zsad.names import METHODS, PRECISIONS, Domain
from zsad.weights import embedded

DEFAULT_CLASS = {Domain.INDUSTRIAL: "object", Domain.MEDICAL: "scan"}
"""What a picture is taken to show where nobody says it; AA-CLIP calls brain slices a "scan" too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreConfig:
    """Everything that decides what a run reads, how it scores, and where it writes."""

    input: tuple[str, ...]
    """Files, folders, object-store prefixes, or queries of a PACS."""
    output: str
    send_to: tuple[str, ...] = ()
    """PACS that the DICOM results are sent to: what `--output` names beside the folder."""
    checkpoint: str
    """Our safetensors file, a folder in a method's official format, or an embedded model's name."""
    clip: str | None = None
    """A source for `zsad.backbone.load_clip`; None: what the checkpoint brings or names."""
    detector: str | None = None
    """The method; None: the checkpoint's own. Another one than the checkpoint's is an error."""
    class_name: str | None = None
    """What every picture shows ("metal nut"); None: "object" or, for medical scans, "scan"."""
    class_from: str | None = None
    """"folder": the name of the folder a scan is in; a CSV file: its columns path, class_name."""
    domain: Domain | None = None
    """None: DICOM and NIfTI are medical, images are industrial."""
    plane: Plane = Plane.ACQUIRED
    window: str = AUTO
    """What becomes black and white: see `io_adapters.windows.parse_choice`."""
    crop: Crop = Crop.NONE
    dicom_output: tuple[DicomOutput, ...] = (DicomOutput.SEG, DicomOutput.SC)
    """What results of DICOM series are written as, beside the map."""
    precision: str = "auto"
    """"auto": bf16 on a GPU, fp32 on a CPU."""
    batch_size: int | None = None
    """Slices that go through the model at once; None: what its device has memory for."""
    workers: int | None = None
    """Processes that score, each with a detector of its own. None: one a GPU, or as many
    as keep all CPUs busy."""
    cpus_per_worker: int | None = None
    """None: without GPUs an even share of what a machine has; with them, what reading leaves."""
    gpus_per_worker: float | None = None
    """None: 1 where there are GPUs. 0.5: two workers share one. 0: GPUs are not used."""
    no_progress_timeout: float = 3 * 3600.0
    """Seconds without a scan that ends, after which a run gives up: the default is three times what
    the largest volume we know needs on a CPU (500 slices of ViT-L at 518 px, 7 s each)."""
    keep_ids: bool = False
    """Whether medical scans keep their paths as names, instead of keyed hashes."""
    bids_output: str | None = None
    """Folder of a BIDS derivatives dataset, for the maps of inputs that are BIDS."""
    since: datetime | None = None
    """Score only scans of which a file was modified then or later."""
    limit: int | None = None
    """Score only the first N scans."""
    dry_run: bool = False
    """Only list what would be scored."""

    def __post_init__(self) -> None:
        if not self.input:
            raise ConfigError("no --input: name at least one file, folder or bucket prefix")
        _check_archives("input", self.input)
        _check_archives("output", self.send_to)
        if self.send_to and not self.dicom_output:
            raise ConfigError("--dicom-output none: leaves nothing to send to a PACS of --output")
        if self.detector is not None and self.detector not in METHODS:
            raise ConfigError(f"--detector {self.detector}: there are {', '.join(METHODS)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"--precision {self.precision}: choose from {', '.join(PRECISIONS)}")
        self._check_numbers()
        try:
            parse_choice(self.window)
        except ValueError as error:
            raise ConfigError(f"--window {error}") from None
        if self.class_name and self.class_from:
            raise ConfigError("--class-name and --class-from exclude each other")
        if self.class_from == "folder" and any(map(is_pacs, self.input)):
            raise ConfigError("--class-from folder: a PACS has no folders; use --class-name")
        if self.since and any(map(is_pacs, self.input)):
            raise ConfigError(
                f"--since {self.since:%Y-%m-%dT%H:%M}: a PACS takes "
                f"?StudyDate={self.since:%Y%m%d}- at the end of --input instead"
            )
        if self.bids_output == self.output:
            raise ConfigError(
                f"--bids-output {self.bids_output}: choose another folder than --output"
            )

    def _check_numbers(self) -> None:
        for name in ("batch_size", "limit", "workers", "cpus_per_worker", "no_progress_timeout"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} {value:g}: must be at least 1")
        gpus = self.gpus_per_worker
        if gpus is not None and (gpus < 0 or (gpus > 1 and gpus != int(gpus))):
            raise ConfigError(f"--gpus-per-worker {gpus:g}: a part of one, or whole ones")

    @property
    def wanted(self) -> Wanted:
        """What was asked for of the cluster."""
        return Wanted(
            workers=self.workers,
            cpus_per_worker=self.cpus_per_worker,
            gpus_per_worker=self.gpus_per_worker,
        )

    def domain_of(self, kind: Kind) -> Domain:
        """Return the domain that scans of a kind belong to."""
        if self.domain is not None:
            return self.domain
        return Domain.INDUSTRIAL if kind is Kind.IMAGE else Domain.MEDICAL

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for `run.json`; a query of a PACS without what names a patient."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        since = self.since and self.since.isoformat(timespec="seconds")
        return values | {"input": tuple(map(shown, self.input)), "since": since}


def parse_config(arguments: Sequence[str] | None = None) -> ScoreConfig:
    """Build the configuration from command-line arguments; they win over `--config FILE.yaml`.

    Raises:
        ConfigError: a setting is unknown, missing or impossible.
        SystemExit: the command line itself is malformed, or asks for help.
    """
    settings = gather(
        _parser(),
        arguments,
        known={field.name for field in dataclasses.fields(ScoreConfig)} - {"send_to"},
        required=("input", "output", "checkpoint"),
    )
    if isinstance(settings.get("input"), str):
        settings["input"] = [settings["input"]]
    settings["input"] = tuple(rooted(uri, "input") for uri in settings["input"])
    settings["output"], settings["send_to"] = _split_outputs(settings["output"])
    if settings.get("bids_output"):
        settings["bids_output"] = rooted(settings["bids_output"], "bids-output")
    if settings.get("since") is not None:
        settings["since"] = parse_since(str(settings["since"]), datetime.now(UTC))
    if settings["checkpoint"] not in embedded():
        settings["checkpoint"] = absolute(settings["checkpoint"])
    if settings.get("clip"):
        settings["clip"] = _clip_source(settings["clip"])
    try:
        for name, kind in (("domain", Domain), ("plane", Plane), ("crop", Crop)):
            if settings.get(name) is not None:
                settings[name] = kind(settings[name])
        if "dicom_output" in settings:
            settings["dicom_output"] = _dicom_outputs(settings["dicom_output"])
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return ScoreConfig(**settings)


def _clip_source(clip: str) -> str:
    """Return a source for `zsad.backbone.load_clip`; the path of a file is made absolute.

    Raises:
        ConfigError: there is no such file, nor a published model of that name.
    """
    from zsad.backbone import is_file

    if not is_file(clip):
        return clip
    if not Path(clip).is_file():
        raise ConfigError(f"--clip {clip}: no such file, nor a model that open_clip publishes")
    return absolute(clip)


def _dicom_outputs(given: str | Sequence[str]) -> tuple[DicomOutput, ...]:
    """Return the kinds of object that "seg,sc", a list of them, or "none" names.

    Raises:
        ConfigError: there is no such kind.
    """
    names = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    try:
        return () if list(names) == ["none"] else tuple(dict.fromkeys(map(DicomOutput, names)))
    except ValueError:
        kinds = ", ".join(output.value for output in DicomOutput)
        raise ConfigError(f"--dicom-output {given}: choose from {kinds}, or none") from None


def _split_outputs(outputs: str | Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the folder of a run's records, and the PACS that results are sent to beside it."""
    uris = [outputs] if isinstance(outputs, str) else outputs
    folders = [uri for uri in uris if not is_pacs(uri)]
    if len(folders) != 1:
        raise ConfigError(
            f"--output names {len(folders)} folders: name one, where the run keeps its records, "
            "and beside it any PACS"
        )
    return rooted(folders[0], "output"), tuple(uri.rstrip("/") for uri in uris if is_pacs(uri))


def _check_archives(setting: str, uris: Sequence[str]) -> None:
    for uri in filter(is_pacs, uris):
        try:
            query = parse_query(uri)
        except ValueError as error:
            raise ConfigError(f"--{setting} {scheme_of(uri)}: {error}") from None
        if setting == "output" and query.root != uri:
            raise ConfigError(f"--output {shown(uri)}: name the service alone, {query.root}")


_INPUT_HELP = "files, folders, s3://bucket/prefix, dicomweb://host/path?StudyDate=20260101-"
_OUTPUT_HELP = (
    "folder of the results, where a second run resumes; beside it, dicomweb://host/path that DICOM "
    "results are sent to"
)
_WINDOW_HELP = f"CT window: auto, {', '.join(CT_PRESETS)}; or what is black and white (auto)"
_NO_PROGRESS_HELP = "give up after so long without a scan that ends (10800)"
_CHECKPOINT_HELP = "trained weights: .safetensors, official ones, or an embedded model's name"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="score_dataset.py",
        description="Score every scan of an archive for anomalies; write maps, scores, a report.",
        argument_default=argparse.SUPPRESS,
        epilog="exit code: 0 every input scored, 3 some failed (failures.csv), 1 the run failed, "
        "2 wrong usage",
    )
    add = parser.add_argument
    add("--input", nargs="+", metavar="URI", help=_INPUT_HELP)
    add("--output", nargs="+", metavar="URI", help=_OUTPUT_HELP)
    add("--checkpoint", metavar="PATH|NAME", help=_CHECKPOINT_HELP)
    add("--clip", metavar="openai|ARCHITECTURE/TAG|FILE", help="CLIP, if the checkpoint has none")
    add("--detector", choices=METHODS, help="method (default: the checkpoint's)")
    add("--class-name", metavar="TEXT", help='what the pictures show, e.g. "metal nut"')
    add("--class-from", metavar="folder|FILE.csv", help="class names from folders or a table")
    add("--domain", choices=[domain.value for domain in Domain], help="default: by file kind")
    add("--plane", choices=[plane.value for plane in Plane], help="slices of a volume")
    add("--window", metavar="NAME|LOW,HIGH", help=_WINDOW_HELP)
    add("--crop", choices=[crop.value for crop in Crop], help="what of a scan is scored (none)")
    add("--dicom-output", metavar="KIND,…", help="of DICOM series: seg,sc,pm,sr or none (seg,sc)")
    add("--precision", choices=PRECISIONS, help="auto: bf16 on a GPU, fp32 on a CPU")
    add("--batch-size", type=int, metavar="N", help="slices through the model at once (what fits)")
    add("--workers", type=int, metavar="N", help="processes that score (as many as pay)")
    add("--cpus-per-worker", type=int, metavar="N", help="CPUs of each (all, in even shares)")
    add("--gpus-per-worker", type=float, metavar="N", help="GPUs of each, 0.5 to share one (1)")
    add("--no-progress-timeout", type=float, metavar="SECONDS", help=_NO_PROGRESS_HELP)
    add("--keep-ids", action="store_true", help="name medical scans by path, not by keyed hash")
    add("--bids-output", metavar="URI", help="folder of BIDS derivatives, for inputs that are BIDS")
    add("--since", metavar="TIME|AGO", help="only what changed: 2026-01-31, 2026-01-31T02:00, 24h")
    add("--limit", type=int, metavar="N", help="score only the first N scans")
    add("--dry-run", action="store_true", help="list what would be read and scored, and stop")
    add("--config", metavar="FILE.yaml", help="the same settings as YAML; the command line wins")
    return parser
