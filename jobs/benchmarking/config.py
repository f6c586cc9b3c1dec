"""What a benchmark measures, from its command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
        for name in ("batch_size", "rounds"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} {getattr(self, name)}: must be at least 1")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def parse_config(arguments: Sequence[str] | None = None) -> BenchmarkConfig:
    """Build the configuration from command-line arguments.

    Raises:
        ConfigError: a setting is impossible.
        SystemExit: the command line itself is malformed, or asks for help.
    """
    settings = vars(_parser().parse_args(arguments))
    if str(settings.get("architecture", "")).endswith(".json"):
        settings["architecture"] = _read_architecture(Path(settings["architecture"]))
    return BenchmarkConfig(**settings)


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
        description="Measure a detector, with random weights, against a plain implementation.",
        argument_default=argparse.SUPPRESS,
        epilog="exit code: 0 measured, 1 the two disagree, 2 wrong usage",
    )
    add = parser.add_argument
    add("--method", required=True, metavar="METHOD", help=" or ".join(METHODS))
    add(
        "--architecture",
        metavar="NAME|FILE.json",
        help=f"an open_clip model, or a file that describes one ({OPENAI_ARCHITECTURE})",
    )
    add("--image-size", type=int, metavar="PIXELS", help="side of the input (518)")
    add("--batch-size", type=int, metavar="N", help="slices in a batch and in a round (4)")
    add("--rounds", type=int, metavar="N", help="how often each variant is timed (3)")
    add("--json", metavar="FILE", help="where to write the numbers")
    return parser
