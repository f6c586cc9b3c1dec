"""What a benchmark measures, from its command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from jobs.benchmarking.methods import METHODS
from jobs.settings import ConfigError
from zsad.backbone import OPENAI_ARCHITECTURE


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkConfig:
    """Everything that decides what is measured, and where the numbers are written."""

    method: str
    architecture: str | dict[str, Any] = OPENAI_ARCHITECTURE
    """Name of an open_clip model, or such a model's configuration; its weights are random."""
    image_size: int = 518
    batch_size: int = 4
    """Slices that the detector takes at once, and that a round consists of."""
    rounds: int = 3
    json: str | None = None
    """File for the numbers; None: they are only printed."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"--method {self.method}: choose from {', '.join(METHODS)}")
        _check_at_least_one(self, "batch_size", "rounds")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingConfig:
    """What decides how reading is measured, and where the numbers are written."""

    image_size: int = 512
    """Rows, and columns."""
    slices: int = 140
    rounds: int = 3
    """How often each encoding is read by each reader."""
    json: str | None = None
    """File for the numbers; None: they are only printed."""

    def __post_init__(self) -> None:
        _check_at_least_one(self, "image_size", "slices", "rounds")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def _check_at_least_one(config: BenchmarkConfig | ReadingConfig, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} {getattr(config, name)}: must be at least 1")


def parse_config(arguments: Sequence[str] | None = None) -> BenchmarkConfig | ReadingConfig:
    """Build the configuration from command-line arguments.

    Raises:
        ConfigError: a setting is impossible.
        SystemExit: the command line itself is malformed, or asks for help.
    """
    settings = vars(_parser().parse_args(arguments))
    if settings.pop("reading", False):
        return ReadingConfig(**_known(settings, ReadingConfig))
    if str(settings.get("architecture", "")).endswith(".json"):
        settings["architecture"] = _read_architecture(Path(settings["architecture"]))
    return BenchmarkConfig(**_known(settings, BenchmarkConfig))


def _known(settings: dict[str, Any], config: type) -> dict[str, Any]:
    """Return the settings, after a check that this benchmark has them all."""
    for name in settings.keys() - {field.name for field in fields(config)}:
        raise ConfigError(f"--{name.replace('_', '-')}: this benchmark has no such setting")
    return settings


def _read_architecture(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--architecture {path}: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"--architecture {path}: must hold an open_clip model's configuration")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmark.py",
        description="Measure a detector, with random weights, or the reading of a CT series, "
        "against a plain implementation.",
        argument_default=argparse.SUPPRESS,
        epilog="exit code: 0 measured, 1 the two disagree, 2 wrong usage",
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--method", metavar="METHOD", help=" or ".join(METHODS))
    what.add_argument("--reading", action="store_true", help="a CT series, against plain pydicom")
    add(
        "--architecture",
        metavar="NAME|FILE.json",
        help=f"an open_clip model, or a file that describes one ({OPENAI_ARCHITECTURE})",
    )
    add("--image-size", type=int, metavar="PIXELS", help="side of a slice (518, or 512 of CT)")
    add("--batch-size", type=int, metavar="N", help="slices a detector takes at once (4)")
    add("--slices", type=int, metavar="N", help="length of the CT series (140)")
    add("--rounds", type=int, metavar="N", help="how often each variant is timed (3)")
    add("--json", metavar="FILE", help="where to write the numbers")
    return parser
