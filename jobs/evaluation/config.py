"""The configuration of an evaluation: a command line, a YAML file, or both, validated here."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from io_adapters import storage
from jobs.evaluation.published import benchmarks
from jobs.settings import ConfigError, gather, rooted
from zsad.detectors import DETECTORS, Domain
from zsad.names import PRECISIONS
from zsad.weights import embedded


class ScoreRule(StrEnum):
    """Where the constants of an image's score come from."""

    CONSTANTS = "constants"
    """The checkpoint: what a scoring run would give the same image. Maps have the images' size."""
    PUBLISHED = "published"
    """All images of the class, as the method's authors do it. Maps have the model's input size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Everything that decides what is evaluated, how, and where the numbers are written."""

    data: str
    """A labelled set: a list or a folder, as `io_adapters.datasets` reads them."""
    output: str
    checkpoint: str
    """Our safetensors file, or a folder or file in a method's official format."""
    domain: Domain
    detector: str | None = None
    """The method; None: the checkpoint's own. Another one than the checkpoint's is an error."""
    clip: str | None = None
    """CLIP weights, instead of what the checkpoint brings or names."""
    root: str | None = None
    """Where the paths of a list start; None: at the list's own folder."""
    descriptions: str | None = None
    """YAML or JSON file: the set's class names → what prompts call them."""
    scores: ScoreRule = ScoreRule.CONSTANTS
    dataset: str | None = None
    """Benchmark whose published numbers are shown beside; None: none."""
    precision: str = "auto"
    """"auto": bf16 on a GPU, fp32 on a CPU."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(f"--precision {self.precision}: choose from {', '.join(PRECISIONS)}")
        if self.dataset is not None and self.dataset not in benchmarks():
            raise ConfigError(f"--dataset {self.dataset}: choose from {', '.join(benchmarks())}")
        if self.detector is not None and self.detector not in DETECTORS:
            raise ConfigError(f"--detector {self.detector}: there are {', '.join(DETECTORS)}")

    def read_descriptions(self) -> dict[str, str]:
        """Read the descriptions of classes; none where no file is named.

        Raises:
            ConfigError: the file cannot be read, or is no mapping of texts to texts.
        """
        if self.descriptions is None:
            return {}
        try:
            found = yaml.safe_load(storage.read_bytes(self.descriptions))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"--descriptions {self.descriptions}: {error}") from error
        texts = isinstance(found, dict) and all(
            isinstance(t, str) for kv in found.items() for t in kv
        )
        if not texts:
            raise ConfigError(
                f"--descriptions {self.descriptions}: must map class names to texts; "
                'quote names that look like numbers ("01")'
            )
        return dict(found)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for `metrics.json`."""
        return dataclasses.asdict(self)


def parse_config(arguments: Sequence[str] | None = None) -> EvaluateConfig:
    """Build the configuration from command-line arguments; they win over `--config FILE.yaml`.

    Raises:
        ConfigError: a setting is unknown, missing or impossible.
        SystemExit: the command line itself is malformed, or asks for help.
    """
    settings = gather(
        _parser(),
        arguments,
        known={field.name for field in dataclasses.fields(EvaluateConfig)},
        required=("data", "output", "checkpoint", "domain"),
    )
    paths = ["data", "output", "root", "descriptions"]
    paths += [] if settings["checkpoint"] in embedded() else ["checkpoint"]
    for name in paths:
        if settings.get(name):
            settings[name] = rooted(settings[name], name)
    try:
        settings["domain"] = Domain(settings["domain"])
        settings["scores"] = ScoreRule(settings.get("scores", ScoreRule.CONSTANTS))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return EvaluateConfig(**settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate.py",
        description="Measure a detector on a labelled set, class by class.",
        argument_default=argparse.SUPPRESS,
        epilog="exit code: 0 every image evaluated, 3 some could not be read, 1 the run failed, "
        "2 wrong usage",
    )
    add = parser.add_argument
    add("--data", metavar="URI", help="SET.jsonl, meta.json, VisA's SET.csv, or MVTec's folders")
    add("--root", metavar="URI", help="folder that a list's paths start from (default: its own)")
    add("--domain", choices=[domain.value for domain in Domain], help="what the set shows")
    add("--descriptions", metavar="FILE", help="YAML: class names → what prompts call them")
    add("--output", metavar="URI", help="folder of metrics.json and metrics.csv")
    add("--checkpoint", metavar="PATH", help="trained weights: .safetensors or official")
    add("--clip", metavar="openai|ARCHITECTURE/TAG|FILE", help="CLIP, if the checkpoint has none")
    add("--detector", choices=sorted(DETECTORS), help="method (default: the checkpoint's)")
    add("--scores", choices=[rule.value for rule in ScoreRule], help="rule of the image scores")
    add("--dataset", choices=benchmarks(), help="show what was published on this benchmark")
    add("--precision", choices=PRECISIONS, help="auto: bf16 on a GPU, fp32 on a CPU")
    add("--config", metavar="FILE.yaml", help="the same settings as YAML; the command line wins")
    return parser
