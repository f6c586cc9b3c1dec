"""The command line of `jobs/benchmark.py`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from jobs.benchmarking.config import (
    AllConfig,
    BenchmarkConfig,
    Config,
    PipelineConfig,
    RandomWeights,
    ReadingConfig,
    ScalingConfig,
)
from jobs.benchmarking.methods import METHODS
from jobs.errors import ConfigError
from zsad.backbone import OPENAI_ARCHITECTURE
from zsad.names import PRECISIONS

MODES = {
    "pipeline": "the whole job on a drawn archive, against its detector alone",
    "all": "the detector against the plain implementation, and the whole job",
    "scaling": "the whole job on archives of 1×, 4× and 16× as many scans",
    "reading": "a CT series, against plain pydicom",
}
_ARCHITECTURE_HELP = f"an open_clip model, or a file that describes one ({OPENAI_ARCHITECTURE})"
_SIZES_HELP = "the same for each size; the fastest one counts, and is the job's"


def parse_config(arguments: Sequence[str] | None = None) -> Config:
    """Build the configuration from command-line arguments.

    Raises:
        ConfigError: a setting is impossible.
        SystemExit: the command line itself is malformed, or asks for help.
    """
    settings = vars(_parser().parse_args(arguments))
    mode = settings.pop("mode", "detector")
    if mode == "reading":
        return ReadingConfig(**_known(settings, ReadingConfig))
    weights = _take_weights(settings)
    if mode == "pipeline" and weights is None and "checkpoint" not in settings:
        raise ConfigError("--pipeline: name a --method or a --checkpoint")
    if mode in ("pipeline", "scaling"):
        kind = PipelineConfig if mode == "pipeline" else ScalingConfig
        return kind(**_known(_with_checkpoint(settings, weights), kind))
    if weights is None:
        raise ConfigError(f"--method is missing: choose from {', '.join(METHODS)}, or see --help")
    if mode == "detector":
        return _detector(_known(settings, BenchmarkConfig, "batch_size"), weights)
    settings = _known(settings, BenchmarkConfig, *_names(PipelineConfig) - {"checkpoint"})
    return AllConfig(
        detector=_detector(settings, weights),
        pipeline=PipelineConfig(checkpoint=weights, **_of(settings, PipelineConfig)),
    )


def _detector(settings: Mapping[str, Any], weights: RandomWeights) -> BenchmarkConfig:
    of_detector = _of(settings, BenchmarkConfig)
    if "batch_size" in settings:
        of_detector["batch_sizes"] = (settings["batch_size"],)
    return BenchmarkConfig(weights=weights, **of_detector)


def _take_weights(settings: dict[str, Any]) -> RandomWeights | None:
    """Take out of the settings what is said of random weights."""
    said = {name: settings.pop(name) for name in _names(RandomWeights) if name in settings}
    if "method" not in said:
        settings |= said  # where no method is named, nothing knows these
        return None
    if str(said.get("architecture", "")).endswith(".json"):
        said["architecture"] = _read_architecture(Path(said["architecture"]))
    return RandomWeights(**said)


def _with_checkpoint(settings: dict[str, Any], weights: RandomWeights | None) -> dict[str, Any]:
    if weights is None:
        return settings
    if "checkpoint" in settings:
        raise ConfigError("--checkpoint and --method exclude each other")
    return settings | {"checkpoint": weights}


def _known(settings: dict[str, Any], kind: type, *more: str) -> dict[str, Any]:
    """Return the settings, after a check that this benchmark has them all."""
    for name in settings.keys() - _names(kind) - set(more):
        raise ConfigError(f"--{name.replace('_', '-')}: this benchmark has no such setting")
    return settings


def _of(settings: Mapping[str, Any], kind: type) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in _names(kind)}


def _names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


def _read_architecture(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--architecture {path}: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"--architecture {path}: must hold an open_clip model's configuration")
    return found


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmark.py",
        description="Measure a detector, with random weights, against a plain implementation of "
        "its method, or what one of the options below says.",
        argument_default=argparse.SUPPRESS,
        epilog="exit code: 0 measured, 1 it went wrong, 2 wrong usage",
    )
    add = parser.add_argument
    mode = parser.add_mutually_exclusive_group()
    for name, measured in MODES.items():
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, help=measured)
    add("--method", metavar="METHOD", help=" or ".join(METHODS))
    add("--architecture", metavar="NAME|FILE.json", help=_ARCHITECTURE_HELP)
    add("--image-size", type=int, metavar="PIXELS", help="side of a slice (518, or 512 of CT)")
    add("--checkpoint", metavar="FILE|NAME", help="of the job, instead of random weights")
    add("--precision", metavar="PRECISION", help=f"of the job: {', '.join(PRECISIONS)} (auto)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="slices a detector takes at once (4; jobs: theirs)",
    )
    size.add_argument("--batch-sizes", type=_sizes, metavar="N,N,…", help=_SIZES_HELP)
    add("--slices", type=int, metavar="N", help="of all scans (200), or of the CT series (140)")
    add("--scans", type=int, metavar="N", help="of the smallest archive (20)")
    add("--slices-per-scan", type=int, metavar="N", help="(40; 8 with --scaling)")
    add("--scan-size", type=int, metavar="PIXELS", help="side of a scan's slice (512; 256)")
    add("--bare-seconds", type=float, metavar="SECONDS", help="for the job's detector alone (20)")
    add("--rounds", type=int, metavar="N", help="how often each variant is timed (3)")
    add("--price-per-hour", type=float, metavar="PRICE", help="of the machine: tells what it costs")
    add("--json", metavar="FILE", help="where to write the numbers")
    return parser
