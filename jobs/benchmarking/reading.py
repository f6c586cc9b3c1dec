"""A CT series read by us and by plain pydicom: what it costs that it is put together and checked.

Plain is `pydicom.dcmread` and `pixel_array` of file after file, as stored: nothing is sorted,
checked, rescaled or joined. It decodes with the package that a plain installation would use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom

from io_adapters.readers import read_scan
from io_adapters.scan import FileRef, Kind, ScanRef
from jobs.benchmarking.config import ReadingConfig
from jobs.benchmarking.ct_series import ENCODINGS, INTERCEPT, write_series
from jobs.benchmarking.timing import Times, Work, interleave
from jobs.errors import ConfigError

PLAIN_DECODERS = {
    "uncompressed": "",
    "jpeg_ls": "pyjpegls",
    "jpeg_2000": "pillow",
    "rle": "pydicom",
}


@dataclass(frozen=True, slots=True)
class ReadingComparison:
    """What was measured."""

    times: Mapping[str, tuple[Times, Times]]
    """By encoding, plain pydicom's and ours."""
    wrong: Sequence[str]
    """The encodings whose voxels are not plain pydicom's."""

    @property
    def problem(self) -> str | None:
        """Why the numbers are none."""
        return f"too large a difference: {', '.join(self.wrong)}" if self.wrong else None

    @property
    def rates(self) -> Mapping[str, float]:
        """Nothing is scored."""
        return {}

    def ratio(self, encoding: str) -> float:
        """Return how many times as long as plain pydicom we take."""
        plain, ours = self.times[encoding]
        return ours.median / plain.median

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            **{f"ratio_{encoding}_to_plain": self.ratio(encoding) for encoding in self.times},
            "seconds_per_slice": {
                encoding: {"plain": plain.to_dict(), "ours": ours.to_dict()}
                for encoding, (plain, ours) in self.times.items()
            },
            "plain_decoders": PLAIN_DECODERS,
            "wrong": list(self.wrong),
        }

    def as_text(self) -> str:
        """Return a table for a person."""
        lines = [f"{'ms a slice':16}{'plain':>9}{'ours':>9}{'ours ÷ plain':>14}"]
        for encoding, (plain, ours) in self.times.items():
            columns = f"{1000 * plain.median:9.3g}{1000 * ours.median:9.3g}"
            lines.append(f"{encoding:16}{columns}{self.ratio(encoding):14.2f}")
        return "\n".join(lines)


def compare_reading(config: ReadingConfig) -> ReadingComparison:
    """Measure how long a series takes in each encoding, telling how far it is.

    Raises:
        ConfigError: plain pydicom lacks a decoder.
    """
    with TemporaryDirectory() as folder:
        print("writing the series", flush=True)
        series = {
            encoding: write_series(
                Path(folder) / encoding, encoding, slices=config.slices, size=config.image_size
            )
            for encoding in ENCODINGS
        }
        wrong = [encoding for encoding, files in series.items() if not _agree(encoding, files)]
        variants = {
            f"{who}_{encoding}": Work(partial(read, encoding, files), config.slices)
            for encoding, files in series.items()
            for who, read in (("plain", read_plainly), ("ours", read_ours))
        }
        times = interleave(variants, rounds=config.rounds)
    pairs = {name: (times[f"plain_{name}"], times[f"ours_{name}"]) for name in series}
    return ReadingComparison(pairs, wrong)


def read_plainly(encoding: str, files: Sequence[Path]) -> list[np.ndarray]:
    """Return the stored values of each file.

    Raises:
        ConfigError: the package that decodes them is missing.
    """
    slices = []
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.pixel_array_options(decoding_plugin=PLAIN_DECODERS[encoding])
        try:
            slices.append(dataset.pixel_array)
        except RuntimeError as error:
            raise ConfigError(f"plain pydicom cannot decode {encoding}: {error}") from error
    return slices


def read_ours(_encoding: str, files: Sequence[Path]) -> np.ndarray:
    """Return the volume (S, H, W)."""
    refs = tuple(FileRef(uri=str(file), size=file.stat().st_size, version="") for file in files)
    folder = str(files[0].parent)
    return read_scan(
        ScanRef(kind=Kind.DICOM, uri=folder, files=refs, scan_id="ct", study_id="ct", label="ct")
    ).pixels


def _agree(encoding: str, files: Sequence[Path]) -> bool:
    plain = np.stack(read_plainly(encoding, files))
    return np.array_equal(read_ours(encoding, files), plain + INTERCEPT)
