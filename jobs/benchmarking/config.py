"""What is measured, and where the numbers are written: a configuration for each benchmark."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.benchmarking.methods import METHODS
from jobs.errors import ConfigError
from zsad.backbone import OPENAI_ARCHITECTURE
from zsad.names import PRECISIONS
from zsad.weights import embedded


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomWeights:
    """A detector that nobody has trained, for which nothing has to be downloaded."""

    method: str
    architecture: str | dict[str, Any] = OPENAI_ARCHITECTURE
    """Name of an open_clip model, or such a model's configuration."""
    image_size: int = 518
    """Side of its input."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"--method {self.method}: choose from {', '.join(METHODS)}")
        _check_at_least_one(self, "image_size")


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkConfig:
    """A detector against the plain implementation of its method."""

    weights: RandomWeights
    batch_sizes: tuple[int, ...] = (4,)
    """Slices that the detector takes at once; of several sizes the fastest one counts."""
    rounds: int = 3
    price_per_hour: float | None = None
    """Of the machine, in any currency."""
    json: str | None = None
    """File for the numbers; None: they are only printed."""

    def __post_init__(self) -> None:
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ConfigError(f"--batch-sizes {_listed(self.batch_sizes)}: must be at least 1")
        _check_at_least_one(self, "rounds")
        _check_price(self.price_per_hour)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig:
    """The whole job on a drawn archive, against its detector alone."""

    checkpoint: str | RandomWeights
    """A file, an embedded model's name, or weights that are made for this."""
    slices: int = 200
    slices_per_scan: int = 40
    scan_size: int = 512
    """Rows, and columns, of a slice."""
    precision: str = "auto"
    batch_size: int | None = None
    """None: what the job takes on this machine."""
    bare_seconds: float = 20.0
    """How long the detector alone is measured, before the job and after it."""
    price_per_hour: float | None = None
    json: str | None = None

    def __post_init__(self) -> None:
        _check_job(self)
        _check_at_least_one(self, "slices")
        _check_price(self.price_per_hour)
        if self.bare_seconds <= 0:
            raise ConfigError(f"--bare-seconds {self.bare_seconds:g}: must be more than 0")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class AllConfig:
    """Both of one detector: against the plain implementation, and the whole job."""

    detector: BenchmarkConfig
    pipeline: PipelineConfig

    @property
    def json(self) -> str | None:
        """File for the numbers."""
        return self.detector.json

    @property
    def price_per_hour(self) -> float | None:
        """Of the machine."""
        return self.detector.price_per_hour

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalingConfig:
    """The whole job on archives of 1×, 4× and 16× as many scans."""

    checkpoint: str | RandomWeights = "tiny"
    scans: int = 20
    """Of the smallest archive."""
    slices_per_scan: int = 8
    scan_size: int = 256
    precision: str = "auto"
    batch_size: int | None = None
    price_per_hour: float | None = None
    json: str | None = None

    def __post_init__(self) -> None:
        _check_job(self)
        _check_at_least_one(self, "scans")
        _check_price(self.price_per_hour)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingConfig:
    """How reading is measured."""

    image_size: int = 512
    """Rows, and columns."""
    slices: int = 140
    rounds: int = 3
    """How often each encoding is read by each reader."""
    json: str | None = None

    def __post_init__(self) -> None:
        _check_at_least_one(self, "image_size", "slices", "rounds")

    @property
    def price_per_hour(self) -> float | None:
        """Reading alone costs nothing that anybody pays for."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


Config = BenchmarkConfig | PipelineConfig | AllConfig | ScalingConfig | ReadingConfig


def _check_job(config: PipelineConfig | ScalingConfig) -> None:
    checkpoint = config.checkpoint
    found = isinstance(checkpoint, RandomWeights) or checkpoint in embedded()
    if not found and not Path(str(checkpoint)).exists():
        names = ", ".join(embedded())
        raise ConfigError(f"--checkpoint {checkpoint}: no such file, nor one of {names}")
    if config.precision not in PRECISIONS:
        raise ConfigError(f"--precision {config.precision}: choose from {', '.join(PRECISIONS)}")
    _check_at_least_one(config, "slices_per_scan", "scan_size", "batch_size")


def _check_at_least_one(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: must be at least 1")


def _check_price(price: float | None) -> None:
    if price is not None and price < 0:
        raise ConfigError(f"--price-per-hour {price:g}: must not be negative")


def _listed(sizes: tuple[int, ...]) -> str:
    return ",".join(map(str, sizes))
