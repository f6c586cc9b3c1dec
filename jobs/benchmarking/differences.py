"""How far a detector's numbers are from those of a plain implementation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The largest one of a kind of number."""

    of: str
    """"map", "score", …"""
    largest: float
    reach: float
    """From the lowest to the highest value of the plain implementation: what the largest is to be
    compared with."""
    allowed: float | None
    """Above it the detector is wrong; None: the two may differ."""

    @property
    def is_too_large(self) -> bool:
        """Whether the detector is wrong."""
        return self.allowed is not None and not self.largest <= self.allowed  # NaN is too large

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    def as_text(self) -> str:
        """Return it as a line for a person."""
        allowed = "" if self.allowed is None else f", allowed {self.allowed:.0e}"
        return f"  {self.of}: {self.largest:.1e} of {self.reach:.1e}{allowed}"


def find_difference(
    of: str,
    found: np.ndarray | Sequence[float],
    expected: np.ndarray | Sequence[float],
    *,
    allowed: float | None,
) -> Difference:
    """Compare the detector's numbers, of any shape, with the plain implementation's."""
    plain = np.asarray(expected, dtype=np.float64)
    return Difference(
        of=of,
        largest=float(np.abs(np.asarray(found, dtype=np.float64) - plain).max()),
        reach=float(plain.max() - plain.min()),
        allowed=allowed,
    )
