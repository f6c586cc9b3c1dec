"""What a comparison of a detector with the plain implementation of its method tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.benchmarking.batch_stages import BatchStages
from jobs.benchmarking.differences import Difference
from jobs.benchmarking.flops import Flops
from jobs.benchmarking.timing import Times

PLAIN, FP32, BF16 = "plain_fp32", "detector_fp32", "detector_bf16"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was measured."""

    times: Mapping[str, Times]
    """Of `plain_fp32`, `detector_fp32` and, where the machine computes in it, `detector_bf16`, each
    detector at its fastest batch size."""
    differences: Sequence[Difference]
    sizes: Mapping[str, Mapping[int, Times]]
    """Of the detectors, by batch size."""
    flops: Flops
    peaks: Mapping[str, float]
    """FLOP/s of the fastest matrix product, "fp32" and "bf16"."""
    stages: BatchStages
    """Of the fastest detector, at its fastest batch size."""

    @property
    def wrong(self) -> list[str]:
        """The kinds of number that the detector gets wrong."""
        return [difference.of for difference in self.differences if difference.is_too_large]

    @property
    def problem(self) -> str | None:
        """Why the numbers are none."""
        return f"too large a difference: {', '.join(self.wrong)}" if self.wrong else None

    @property
    def rates(self) -> dict[str, float]:
        """Slices a second of the variants."""
        return {name: 1 / times.median for name, times in self.times.items()}

    @property
    def fastest(self) -> str:
        """The detector's fastest variant."""
        return min(self.sizes, key=lambda name: self.times[name].median)

    def ratio(self, name: str) -> float | None:
        """Return how many times as fast as the plain implementation a variant is."""
        return self.times[PLAIN].median / self.times[name].median if name in self.times else None

    def fraction(self, name: str) -> float:
        """Return the share of its peak that a variant's device multiplies for its results.

        What the plain implementation computes beyond the detector's arithmetic does not count.
        """
        return self.flops.all * self.rates[name] / self.peaks[precision_of(name)]

    @property
    def trunk_fraction(self) -> float | None:
        """The share of the peak in the trunk of the fastest variant; None if it was not seen.

        And None on a CPU: the stages are those of one slice on one core, the peak is of them all.
        """
        seconds = self.stages.seconds["trunk"]
        if not seconds or self.stages.device_bytes is None:
            return None
        trunk = self.flops.trunk * self.stages.slices / seconds
        return trunk / self.peaks[precision_of(self.fastest)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            **{f"{name}_slices_per_s": self.rates.get(name) for name in (PLAIN, FP32, BF16)},
            "ratio_fp32_over_plain": self.ratio(FP32),
            "ratio_bf16_over_plain": self.ratio(BF16),
            "fraction_of_matmul_peak": self.fraction(self.fastest),
            "fraction_of_matmul_peak_by_variant": {n: self.fraction(n) for n in self.times},
            "trunk_fraction_of_matmul_peak": self.trunk_fraction,
            **{
                f"matmul_peak_{precision}_tflops": self.peaks[precision] / 1e12
                for precision in self.peaks
            },
            "tflop_per_slice": self.flops.all / 1e12,
            "trunk_tflop_per_slice": self.flops.trunk / 1e12,
            "batch_sizes": {
                name: {size: 1 / times.median for size, times in of_name.items()}
                for name, of_name in self.sizes.items()
            },
            **self.stages.to_dict(),
            "seconds_per_slice": {name: times.to_dict() for name, times in self.times.items()},
            "differences": [difference.to_dict() for difference in self.differences],
        }

    def as_text(self) -> str:
        """Return tables for a person."""
        return "\n".join(
            [
                *self._variants_as_text(),
                *self._sizes_as_text(),
                f"{self.flops.all / 1e12:.3g} TFLOP a slice, {self.flops.trunk / 1e12:.3g} in the "
                "trunk; matrix products reach "
                + ", ".join(f"{peak / 1e12:.3g} TFLOP/s in {n}" for n, peak in self.peaks.items()),
                f"{self.fastest}: {self.stages.as_text()}",
                *self._trunk_as_text(),
                "largest difference of detector_fp32 from plain_fp32, of the numbers' reach:",
                *(difference.as_text() for difference in self.differences),
            ]
        )

    def _trunk_as_text(self) -> list[str]:
        if not self.stages.seconds["trunk"]:
            return ["the trunk's modules were not called: it is among the heads"]
        if self.trunk_fraction is None:
            return []
        return [f"the trunk reaches {self.trunk_fraction:.0%} of the peak"]

    def _variants_as_text(self) -> list[str]:
        titles = ("s/slice", "fastest", "slowest", "slices/s", "× plain", "of peak")
        lines = [f"{'':16}" + "".join(f"{title:>9}" for title in titles)]
        for name, times in self.times.items():
            columns = (times.median, min(times.rounds), max(times.rounds), self.rates[name])
            numbers = "".join(f"{value:9.3g}" for value in columns)
            lines.append(f"{name:16}{numbers}{self.ratio(name):9.2f}{self.fraction(name):9.0%}")
        if BF16 not in self.times:
            lines.append("bf16: not measured, this machine does not compute in it")
        return lines

    def _sizes_as_text(self) -> list[str]:
        if all(len(of_name) == 1 for of_name in self.sizes.values()):
            return []
        lines = [f"{'batch size':16}" + "".join(f"{size:>9}" for size in self.sizes[FP32])]
        for name, of_name in self.sizes.items():
            rates = "".join(f"{1 / times.median:9.3g}" for times in of_name.values())
            lines.append(f"{name:16}{rates}  slices/s")
        return lines


def precision_of(variant: str) -> str:
    """Return "fp32" or "bf16"."""
    return variant.rpartition("_")[2]
