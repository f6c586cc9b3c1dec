"""Scoring without Ray: slices of several scans share batches, and none is blamed for another."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from brightness import Brightness, Whole, grey
from stage_runs import META, image_ref
from torch import Tensor

from jobs.model import Model
from jobs.rows import Batch, column
from jobs.scoring import Scorer, ScorerSettings

FOUND = {"geometry": None, "crop": None}
"""What reading says of a scan that is a stack of slices and no more."""


def scorer_of(detector: object, monkeypatch: pytest.MonkeyPatch, batch_size: int = 4) -> Scorer:
    monkeypatch.setattr("jobs.model.Cpu", Whole)
    model = Model(detector, precision="fp32", threads=1, on_gpu=False)  # type: ignore[arg-type]
    monkeypatch.setattr(Model, "load", lambda *_, **__: model)
    settings = ScorerSettings(checkpoint="", clip=None, precision="fp32", batch_size=batch_size)
    return Scorer(settings, threads=1, on_gpu=False)


def tiny_scorer(checkpoint: Path, batch_size: int) -> Scorer:
    settings = ScorerSettings(
        checkpoint=str(checkpoint), clip=None, precision="fp32", batch_size=batch_size
    )
    return Scorer(settings, threads=1, on_gpu=False)


def rows(*scans: Sequence[np.ndarray], class_name: str = "x") -> Batch:
    """Return rows of scans, each a list of slices uint8 (H, W, 1)."""
    refs = [image_ref(f"/nowhere/{n}", n) for n in range(len(scans))]
    meta = json.dumps(META | FOUND | {"class_name": class_name})
    return {
        "scan_id": column([np.str_(ref.scan_id) for ref in refs]),
        "ref": column([np.str_(ref.to_json()) for ref in refs]),
        "meta": column([np.str_(meta)] * len(refs)),
        "failure": column([np.str_("")] * len(refs)),
        "display": column([np.stack(scan) for scan in scans]),
    }


def noisy(*values: int) -> list[np.ndarray]:
    """Return slices of these mean values that are not blank: one pixel is 1 more, one 1 less."""
    slices = grey(*values)
    for plane in slices:
        plane[0, 0] += 1
        plane[-1, -1] -= 1
    return slices


def reacting(value: int, error: Exception) -> Callable[[Tensor], None]:
    """Return a detector's reaction to a slice with a value in its middle."""

    def react(pixels: Tensor) -> None:
        if (pixels[:, 0, 24, 24] == value).any():
            raise error

    return react


def test_slices_of_several_scans_share_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Brightness()
    scored = scorer_of(detector, monkeypatch)(rows(noisy(10, 20, 30), noisy(40), noisy(50, 60)))
    assert detector.sizes == [4, 2]
    found = [scores.round().tolist() for scores in scored["image_scores"]]
    assert found == [[10, 20, 30], [40], [50, 60]]
    assert [maps.shape for maps in scored["patch_maps"]] == [(3, 6, 6), (1, 6, 6), (2, 6, 6)]
    assert list(scored["failure"]) == ["", "", ""]


def test_slices_that_show_nothing_are_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Brightness()
    scored = scorer_of(detector, monkeypatch)(rows([*noisy(10), *grey(7), *noisy(20)]))
    assert detector.sizes == [2]
    assert scored["image_scores"][0].round().tolist() == [
        10,
        pytest.approx(np.nan, nan_ok=True),
        20,
    ]
    assert np.isnan(scored["patch_maps"][0][1]).all()


def test_a_scan_that_cannot_be_scored_is_a_failure_and_its_mates_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = Brightness(reacting(40, ValueError("of what was read, never to be shown")))
    scored = scorer_of(detector, monkeypatch)(rows(noisy(10, 20), noisy(40), noisy(50)))
    assert [bool(failure) for failure in scored["failure"]] == [False, True, False]
    failure = json.loads(scored["failure"][1])["failure"]
    assert (failure["stage"], failure["scan_id"]) == ("score", "image-1")
    assert "never" not in failure["message"]
    assert scored["display"][1].size == scored["patch_maps"][1].size == 0
    assert scored["image_scores"][2].round().tolist() == [50]


def test_a_scan_that_was_alone_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Brightness(reacting(40, ValueError("each time")))
    scored = scorer_of(detector, monkeypatch)(rows(noisy(40)))
    assert json.loads(scored["failure"][0])["failure"]["error_class"] == "ValueError"
    assert detector.sizes == [1]


def test_too_little_memory_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Brightness(reacting(40, torch.OutOfMemoryError("CUDA out of memory")))
    scored = scorer_of(detector, monkeypatch)(rows(noisy(10, 20), noisy(40)))
    assert scored["failure"][0] == ""
    failure = json.loads(scored["failure"][1])["failure"]
    assert failure["error_class"] == "NoMemoryError"
    assert "a single slice" in failure["message"]


def test_what_failed_before_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = rows(noisy(10), noisy(20))
    batch["failure"] = column([np.str_("told before"), np.str_("")])
    detector = Brightness()
    scored = scorer_of(detector, monkeypatch)(batch)
    assert list(scored["failure"]) == ["told before", ""]
    assert detector.sizes == [1]


def test_scores_do_not_depend_on_what_is_scored_at_the_same_time(tiny_checkpoint: Path) -> None:
    random = np.random.default_rng(0)
    blocks = [
        rows(*[list(random.integers(0, 255, (size, 30, 20, 1), np.uint8)) for size in sizes])
        for sizes in ((5,), (2, 3), (1, 1, 1), (9,))
    ]
    scorer = tiny_scorer(tiny_checkpoint, batch_size=2)
    alone = [scorer(block) for block in blocks]
    together = threading.Barrier(len(blocks))

    def score(block: Batch) -> Batch:
        together.wait(30)
        return scorer(block)

    with ThreadPoolExecutor(len(blocks)) as threads:
        for found, expected in zip(threads.map(score, blocks), alone, strict=True):
            for name in ("patch_maps", "image_scores"):
                for one, other in zip(found[name], expected[name], strict=True):
                    np.testing.assert_array_equal(one, other)
