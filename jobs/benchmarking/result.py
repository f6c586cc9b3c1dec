"""What every benchmark returns, and what is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

HEADLINES = (
    "plain_fp32_slices_per_s",
    "detector_fp32_slices_per_s",
    "detector_bf16_slices_per_s",
    "pipeline_slices_per_s",
    "ratio_fp32_over_plain",
    "ratio_bf16_over_plain",
    "ratio_pipeline_over_detector",
    "fraction_of_matmul_peak",
    "driver_rss_mb",
    "worker_rss_mb",
    "startup_s",
    "finish_s",
)
"""Numbers that every JSON file has, null where a benchmark does not measure them."""


class MeasurementError(Exception):
    """What was to be measured did not come to its end."""


class Result(Protocol):
    """What was measured."""

    @property
    def problem(self) -> str | None:
        """Why the numbers are none; None where they are."""

    @property
    def rates(self) -> Mapping[str, float]:
        """Slices a second of what scores slices."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""

    def as_text(self) -> str:
        """Return a table for a person."""


def cost_of(rates: Mapping[str, float], price_per_hour: float | None) -> dict[str, Any]:
    """Return what 1,000 slices cost at rates in slices a second.

    Args:
        rates: by what is measured.
        price_per_hour: of the machine, in any currency; None: unknown.
    """
    seconds = {name: 1000 / rate for name, rate in rates.items()}
    money = {
        name: None if price_per_hour is None else price_per_hour * each / 3600
        for name, each in seconds.items()
    }
    return {"machine_seconds_per_1000_slices": seconds, "cost_per_1000_slices": money}


def cost_as_text(rates: Mapping[str, float], price_per_hour: float | None) -> str:
    """Return the same in a line for a person."""
    cost = cost_of(rates, price_per_hour)
    parts = []
    for name, seconds in cost["machine_seconds_per_1000_slices"].items():
        money = cost["cost_per_1000_slices"][name]
        parts.append(f"{name} {seconds:.4g} s" + ("" if money is None else f" for {money:.3g}"))
    return "1,000 slices take the machine: " + ", ".join(parts)
