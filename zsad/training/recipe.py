"""What the recipes of all methods have in common: they are read from plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from zsad.training.augment import Augmentation


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What decides the course of a training."""

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Build a recipe from plain values, as YAML and JSON give them.

        Raises:
            ValueError: an unknown setting, or an impossible value.
        """
        known = {one.name: one.default for one in fields(cls)}
        if unknown := sorted(set(settings) - set(known)):
            raise ValueError(f"no setting {unknown} in {cls.__name__}; there are {list(known)}")
        plain: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()
        }
        if isinstance(changes := plain.get("augmentation"), Mapping):
            plain["augmentation"] = Augmentation(**changes)
        for name, value in plain.items():
            if isinstance(known[name], float):
                plain[name] = float(value)  # YAML takes 1e-5, without a point, for text
        return cls(**plain)


def check_above_zero(recipe: Recipe, *names: str) -> None:
    """Raise ValueError if one of these settings is not above 0."""
    for name in names:
        if not getattr(recipe, name) > 0:
            raise ValueError(f"{name} must be above 0, is {getattr(recipe, name)}")


def check_betas(betas: tuple[float, float]) -> None:
    """Raise ValueError if Adam cannot work with these."""
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be in 0…1, are {betas}")
