"""What the configurations of all methods have in common; they are stored with the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from zsad.scores import ScoreRange


class ScoreConstants(NamedTuple):
    """What decides how raw scores are shown and combined."""

    score_range: ScoreRange
    heat: tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorConfig(ABC):
    """The levels that are scored, and the constants of the scores."""

    levels: tuple[int, ...] = (6, 12, 18, 24)
    """Vision blocks, counted from 1, whose patch tokens are scored."""
    score_range: ScoreRange = None  # type: ignore[assignment]
    """Default: the method's, where nothing was calibrated."""
    heat: tuple[float, float] = None  # type: ignore[assignment]
    """Map values where a picture's heat overlay begins and is full; default as above."""

    def __post_init__(self) -> None:
        if list(self.levels) != sorted(set(self.levels)) or not self.levels or self.levels[0] < 1:
            raise ValueError(f"levels must ascend from 1, are {self.levels}")
        for name, default in self.uncalibrated()._asdict().items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        if not self.heat[0] < self.heat[1]:
            raise ValueError(f"heat must be (low, high) with low < high, is {self.heat}")

    @abstractmethod
    def uncalibrated(self) -> ScoreConstants:
        """Return the constants that follow from the method alone."""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild what `dataclasses.asdict` gave, also after a trip through JSON."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()
        }
        if ranges := plain.get("score_range"):
            plain["score_range"] = ScoreRange(
                map=tuple(ranges["map"]), image=tuple(ranges["image"])
            )
        return cls(**plain)


def quarters(blocks: int) -> tuple[int, ...]:
    """Return the blocks at the quarters of a tower: 6, 12, 18 and 24 of 24; fewer of under 4."""
    return tuple(sorted({max(1, round(blocks * quarter / 4)) for quarter in (1, 2, 3, 4)}))
