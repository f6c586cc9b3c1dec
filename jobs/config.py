"""The configuration of a scoring run: a command line, a YAML file, or both, validated here."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from io_adapters.scan import Kind, Plane
from io_adapters.storage import absolute
from jobs.model import PRECISIONS
from jobs.settings import ConfigError, gather, rooted
from zsad.backbone import is_file
from zsad.detectors import DETECTORS, Domain
from zsad.weights import embedded

DEFAULT_CLASS = {Domain.INDUSTRIAL: "object", Domain.MEDICAL: "scan"}
"""What a picture is taken to show where nobody says it; AA-CLIP calls brain slices a "scan" too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreConfig:
    """Everything that decides what a run reads, how it scores, and where it writes."""

    input: tuple[str, ...]
    """Files, folders or object-store prefixes."""
    output: str
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
    precision: str = "auto"
    """"auto": bf16 on a GPU, fp32 on a CPU."""
    batch_size: int = 8
    """Slices that go through the model at once."""
    workers: int | None = None
    """Processes that score, each with a detector of its own; None: one a GPU, or one a machine."""
    keep_ids: bool = False
    """Whether medical scans keep their paths as names, instead of keyed hashes."""
    limit: int | None = None
    """Score only the first N scans."""
    dry_run: bool = False
    """Only list what would be scored."""

    def __post_init__(self) -> None:
        if not self.input:
            raise ConfigError("no --input: name at least one file, folder or bucket prefix")
        if self.detector is not None and self.detector not in DETECTORS:
            raise ConfigError(f"--detector {self.detector}: there are {', '.join(DETECTORS)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"--precision {self.precision}: choose from {', '.join(PRECISIONS)}")
        if self.batch_size < 1:
            raise ConfigError(f"--batch-size {self.batch_size}: must be at least 1")
        for name in ("limit", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} {value}: must be at least 1")
        if self.class_name and self.class_from:
            raise ConfigError("--class-name and --class-from exclude each other")

    def domain_of(self, kind: Kind) -> Domain:
        """Return the domain that scans of a kind belong to."""
        if self.domain is not None:
            return self.domain
        return Domain.INDUSTRIAL if kind is Kind.IMAGE else Domain.MEDICAL

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for `run.json`."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


def parse_config(arguments: Sequence[str] | None = None) -> ScoreConfig:
    """Build the configuration from command-line arguments; they win over `--config FILE.yaml`.

    Raises:
        ConfigError: a setting is unknown, missing or impossible.
        SystemExit: the command line itself is malformed, or asks for help.
    """
    settings = gather(
        _parser(),
        arguments,
        known={field.name for field in dataclasses.fields(ScoreConfig)},
        required=("input", "output", "checkpoint"),
    )
    if isinstance(settings.get("input"), str):
        settings["input"] = [settings["input"]]
    settings["input"] = tuple(rooted(uri, "input") for uri in settings["input"])
    settings["output"] = rooted(settings["output"], "output")
    if settings["checkpoint"] not in embedded():
        settings["checkpoint"] = absolute(settings["checkpoint"])
    clip = settings.get("clip")
    if clip and is_file(clip):
        if not Path(clip).is_file():
            raise ConfigError(f"--clip {clip}: no such file, nor a model that open_clip publishes")
        settings["clip"] = absolute(clip)
    try:
        for name, kind in (("domain", Domain), ("plane", Plane)):
            if settings.get(name) is not None:
                settings[name] = kind(settings[name])
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return ScoreConfig(**settings)


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
    add("--input", nargs="+", metavar="URI", help="files, folders, s3://bucket/prefix")
    add("--output", metavar="URI", help="folder of the results; a second run resumes there")
    add("--checkpoint", metavar="PATH|NAME", help=_CHECKPOINT_HELP)
    add("--clip", metavar="openai|ARCHITECTURE/TAG|FILE", help="CLIP, if the checkpoint has none")
    add("--detector", choices=sorted(DETECTORS), help="method (default: the checkpoint's)")
    add("--class-name", metavar="TEXT", help='what the pictures show, e.g. "metal nut"')
    add("--class-from", metavar="folder|FILE.csv", help="class names from folders or a table")
    add("--domain", choices=[domain.value for domain in Domain], help="default: by file kind")
    add("--plane", choices=[plane.value for plane in Plane], help="slices of a volume")
    add("--precision", choices=PRECISIONS, help="auto: bf16 on a GPU, fp32 on a CPU")
    add("--batch-size", type=int, metavar="N", help="slices through the model at once (8)")
    add("--workers", type=int, metavar="N", help="processes that score (one a GPU or machine)")
    add("--keep-ids", action="store_true", help="name medical scans by path, not by keyed hash")
    add("--limit", type=int, metavar="N", help="score only the first N scans")
    add("--dry-run", action="store_true", help="list what would be read and scored, and stop")
    add("--config", metavar="FILE.yaml", help="the same settings as YAML; the command line wins")
    return parser
