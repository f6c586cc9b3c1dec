"""The benchmark of reading: the series it draws, what it compares, and its command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest

from jobs.benchmark import MEASURED, WENT_WRONG, WRONG_USAGE, main
from jobs.benchmarking import reading
from jobs.benchmarking.ct_series import ENCODINGS, INTERCEPT, PICTURES, draw_slices, write_series
from jobs.benchmarking.timing import Times

SMALL = ["--reading", "--slices", "3", "--image-size", "32", "--rounds", "2"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_holds_the_same_series(encoding: str, tmp_path: Path) -> None:
    count = PICTURES + 2
    files = write_series(tmp_path / encoding, encoding, slices=count, size=32)
    drawn = np.stack(list(draw_slices(PICTURES, 32)))
    expected = np.concatenate([drawn, drawn[:2]])
    assert drawn.dtype == np.int16 and len(np.unique(drawn)) > 100
    np.testing.assert_array_equal(np.stack(reading.read_plainly(encoding, files)), expected)
    np.testing.assert_array_equal(reading.read_ours(encoding, files), expected + INTERCEPT)
    syntaxes = {pydicom.dcmread(file).file_meta.TransferSyntaxUID for file in files}
    assert [syntax.is_compressed for syntax in syntaxes] == [encoding != "uncompressed"]


def test_measures_all_encodings_and_writes_their_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "numbers.json"
    assert main([*SMALL, "--json", str(file)]) == MEASURED
    numbers = json.loads(file.read_text())
    assert list(numbers["seconds_per_slice"]) == list(ENCODINGS)
    for encoding, times in numbers["seconds_per_slice"].items():
        assert len(times["plain"]["rounds"]) == len(times["ours"]["rounds"]) == 2
        ratio = times["ours"]["median"] / times["plain"]["median"]
        assert numbers[f"ratio_{encoding}_to_plain"] == pytest.approx(ratio)
    assert numbers["settings"] == {
        "image_size": 32, "slices": 3, "rounds": 2, "json": str(file)
    }  # fmt: skip
    assert numbers["command"].startswith("python jobs/benchmark.py --reading")
    assert {"pydicom", "imagecodecs"} <= set(numbers["machine"]["versions"])
    table = capsys.readouterr().out.splitlines()[-len(ENCODINGS) - 1 :]
    assert [line.split()[0] for line in table[1:]] == list(ENCODINGS)


def test_the_ratio_is_how_many_times_as_long_we_take() -> None:
    comparison = reading.ReadingComparison({"rle": (Times((2.0, 9.0, 4.0)), Times((6.0,)))}, [])
    assert comparison.ratio("rle") == 1.5


def test_voxels_that_differ_are_no_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = reading.read_ours
    monkeypatch.setattr(
        reading, "read_ours", lambda encoding, files: read(encoding, files) + (encoding == "rle")
    )
    assert main(SMALL) == WENT_WRONG
    assert "too large a difference: rle" in capsys.readouterr().err


def test_a_missing_decoder_of_plain_pydicom_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(reading.PLAIN_DECODERS, "jpeg_ls", "gdcm")
    assert main(SMALL) == WRONG_USAGE
    assert "plain pydicom cannot decode jpeg_ls" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--reading", "--slices", "0"], "--slices 0: must be at least 1"),
        (["--reading", "--image-size", "0"], "--image-size 0"),
        (["--reading", "--architecture", "x"], "--architecture: this benchmark has no such"),
        (["--reading", "--method", "adaclip"], "--method: this benchmark has no such"),
    ],
)
def test_an_impossible_setting_is_one_line(
    given: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given) == WRONG_USAGE
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
