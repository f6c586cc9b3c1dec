"""The configuration of a training run: a YAML file and a few command-line settings."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.settings import ConfigError, gather, rooted
from zsad.backbone import Activation, is_file
from zsad.detectors import Domain
from zsad.training import TRAINERS

PRECISIONS = ("fp32", "bf16")
SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledSet:
    """A labelled set, or the part of it that is used."""

    uri: str
    """A list (.jsonl, .csv, .json) or a folder; io_adapters.datasets describes them."""
    domain: Domain
    root: str | None = None
    """The folder that the paths of a list start from; None: the list's own."""
    splits: tuple[str, ...] = SPLITS
    """Which images to use, of those that name a split."""
    classes: tuple[str, ...] | None = None
    """Which classes to use, by the set's own names; None: all."""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    """What prompts call a class, by the set's own names; others are called by those."""
    mosaic: bool = True
    """Whether its pictures may become parts of mosaics, where the recipe makes any."""

    def __post_init__(self) -> None:
        if not isinstance(self.mosaic, bool):
            raise ConfigError(f"data: {self.uri}: mosaic {self.mosaic!r}: must be true or false")
        if not self.splits or set(self.splits) - set(SPLITS):
            raise ConfigError(f"data: {self.uri}: splits {list(self.splits)}: choose from {SPLITS}")
        if self.classes is not None and not self.classes:
            raise ConfigError(f"data: {self.uri}: classes is empty; leave it out to take all")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Everything that decides what a run learns from, how, and where it writes."""

    data: tuple[LabelledSet, ...]
    output: str
    """Folder of the run: its state, train.json and the checkpoint."""
    method: str = "aaclip"
    clip: str = "openai"
    """"openai", "ARCHITECTURE/PRETRAINED" of open_clip, or a weights file."""
    activation: Activation | None = None
    """"gelu" or "quick_gelu"; None: the CLIP's own, exact GELU for OpenAI's (as AA-CLIP)."""
    image_size: int | None = None
    """Side of the input in pixels; None: the CLIP's own, 518 for OpenAI's (as AA-CLIP)."""
    method_config: Mapping[str, Any] = field(default_factory=dict)
    """The method's own settings: levels, depths of the adapters, widths of the blur."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """The settings of the method's training: epochs, batch sizes, rates."""
    shots: int | None = None
    """Train on so many images of each class and label; None: on all."""
    held_out: float | tuple[LabelledSet, ...] = 0.1
    """What the epoch is chosen by: a share of the images of `data`, or sets of their own; 0: the
    last epoch is taken."""
    seed: int = 0
    workers: int = 1
    gpus_per_worker: float = 0
    precision: str = "fp32"
    include_clip: bool = False
    """Whether the checkpoint brings the CLIP along, so that it runs without --clip."""
    note: str | None = None
    """What a reader of a report must know of the model."""

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("data: name at least one labelled set (docs/training.md)")
        if self.method not in TRAINERS:
            raise ConfigError(f"method {self.method}: there are {', '.join(TRAINERS)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision {self.precision}: choose from {', '.join(PRECISIONS)}")
        for name, least in (("shots", 1), ("workers", 1), ("seed", 0), ("gpus_per_worker", 0)):
            value = getattr(self, name)
            whole = isinstance(value, int) or (name == "gpus_per_worker" and _is_number(value))
            if not (value is None and name == "shots") and not (whole and value >= least):
                raise ConfigError(f"{name} {value!r}: must be a number of at least {least}")
        for name in ("method_config", "recipe"):
            if not isinstance(value := getattr(self, name), Mapping):
                raise ConfigError(f"{name} {value!r}: must be settings, each with its name")
        share = None if isinstance(self.held_out, tuple) else self.held_out
        if share is not None and not (_is_number(share) and 0 <= share < 1):
            raise ConfigError(f"held_out {share!r}: a share is a number in 0…1, below 1")


def parse_train_config(arguments: Sequence[str] | None = None) -> TrainConfig:
    """Build the configuration from `--config FILE.yaml` and what the command line overrides.

    Raises:
        ConfigError: a setting is unknown, missing or impossible.
        SystemExit: the command line itself is malformed, or asks for help.
    """
    settings = gather(
        _parser(),
        arguments,
        known={field.name for field in dataclasses.fields(TrainConfig)},
        required=("data", "output"),
    )
    settings["output"] = rooted(str(settings["output"]), "output")
    settings["data"] = _sets(settings["data"], "data")
    if isinstance(settings.get("held_out"), list):
        settings["held_out"] = _sets(settings["held_out"], "held_out")
    if is_file(clip := str(settings.get("clip", "openai"))):
        settings["clip"] = rooted(clip, "clip")
    try:
        return TrainConfig(**settings)
    except TypeError as error:
        raise ConfigError(str(error)) from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sets(described: Any, name: str) -> tuple[LabelledSet, ...]:
    if not isinstance(described, list) or not all(isinstance(one, dict) for one in described):
        raise ConfigError(f"{name}: must be a list of sets, each with uri and domain")
    return tuple(_set(dict(one), name) for one in described)


def _set(fields: dict[str, Any], name: str) -> LabelledSet:
    known = {field.name for field in dataclasses.fields(LabelledSet)}
    missing, unknown = {"uri", "domain"} - set(fields), set(fields) - known
    if missing or unknown:
        raise ConfigError(
            f"{name}: missing {sorted(missing)}, unknown {sorted(unknown)}; "
            f"a set has {sorted(known)}"
        )
    try:
        fields["domain"] = Domain(fields["domain"])
    except ValueError as error:
        raise ConfigError(f"{name}: {fields['uri']}: {error}") from error
    for path in ("uri", "root"):
        if fields.get(path):
            fields[path] = rooted(str(fields[path]), name)
    for several in ("splits", "classes"):
        if fields.get(several) is not None:
            values = fields[several] if isinstance(fields[several], list) else [fields[several]]
            fields[several] = tuple(str(value) for value in values)
    descriptions = fields.get("descriptions") or {}
    fields["descriptions"] = {str(key): str(text) for key, text in descriptions.items()}
    return LabelledSet(**fields)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a method's weights on labelled sets; the same command continues a run.",
        argument_default=argparse.SUPPRESS,
        epilog="exit code: 0 trained, 1 the run failed, 2 wrong usage",
    )
    add = parser.add_argument
    add("--config", metavar="FILE.yaml", help="all settings (docs/training.md); these win over it:")
    add("--method", choices=sorted(TRAINERS), help="what is trained (aaclip)")
    add("--output", metavar="URI", help="folder of the run; the same command continues there")
    add("--clip", metavar="openai|ARCHITECTURE/PRETRAINED|FILE", help="CLIP weights (openai)")
    add("--shots", type=int, metavar="K", help="train on K images of each class and label")
    add("--seed", type=int, metavar="N", help="of weights, order, augmentation and split (0)")
    add("--workers", type=int, metavar="N", help="processes that share each batch (1)")
    add("--gpus-per-worker", type=float, metavar="N", help="GPUs of each of them (0)")
    add("--precision", choices=PRECISIONS, help="of the forward pass (fp32)")
    add("--note", metavar="TEXT", help="what a reader of a report must know of the model")
    return parser
