"""How scans are laid out for Ray, and how they get through the stages on one machine."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stage_runs import (
    META,
    DeadlyRule,
    NotingWatch,
    image_ref,
    pictures,
    scores_of,
    stage_settings,
)

from io_adapters.scan import Kind, ScanRef
from jobs import stages
from jobs.placement import Placement, Tasks
from jobs.reading import read_row
from jobs.rows import BLOCK_BYTES, IMAGES_PER_BLOCK, Meta, blocks_of
from jobs.stages import lay_out, run_stages, waves
from jobs.watch import Watch

FUSED = Placement(min_workers=1, max_workers=1, cpus=2)
STAGED = Placement(
    min_workers=1,
    max_workers=1,
    cpus=1,
    tasks=Tasks(read_cpus=0.5, publish_cpus=0.25, readers=1),
)


def ref(kind: Kind, number: int = 0, size: int = 1000) -> ScanRef:
    image = image_ref(f"/nowhere/{number}", number, size)
    return dataclasses.replace(image, kind=kind, scan_id=f"{kind.value}-{number}")


def names(refs: list[ScanRef]) -> list[list[str]]:
    return [table["scan_id"].to_pylist() for table in blocks_of((ref, {}) for ref in refs)]


def test_images_share_a_block_and_volumes_have_their_own() -> None:
    images = [ref(Kind.IMAGE, n) for n in range(IMAGES_PER_BLOCK + 1)]
    blocks = names([images[0], ref(Kind.NIFTI), *images[1:], ref(Kind.DICOM)])
    assert sorted(len(block) for block in blocks) == [1, 1, 1, IMAGES_PER_BLOCK]
    assert ["nifti-0"] in blocks
    assert ["dicom-0"] in blocks
    assert sum(map(len, blocks)) == len(images) + 2


def test_large_images_are_taken_alone() -> None:
    images = [ref(Kind.IMAGE, n, size=BLOCK_BYTES) for n in range(3)]
    assert names(images) == [["image-0"], ["image-1"], ["image-2"]]


def test_a_scan_that_cannot_be_read_is_a_row_with_a_failure() -> None:
    meta = json.dumps({"plane": "acquired"})
    row = read_row({"ref": ref(Kind.IMAGE).to_json(), "meta": meta, "failure": ""})
    assert row["display"].shape == (0, 0, 0, 1)
    assert row["display"].dtype == np.uint8
    failure = json.loads(row["failure"])["failure"]
    assert (failure["stage"], failure["scan_id"]) == ("read", "image-0")


@pytest.mark.parametrize(("limit", "value"), [("SCANS", 2 * IMAGES_PER_BLOCK), ("BYTES", 1)])
def test_scans_are_asked_for_wave_by_wave(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(stages, f"{limit}_PER_EXECUTION", value)
    asked = []

    def todo() -> Iterator[tuple[ScanRef, Meta]]:
        for n in range(10 * IMAGES_PER_BLOCK):
            asked.append(n)
            yield ref(Kind.IMAGE, n), {}

    first, second, *_ = waves(blocks_of(todo()))
    assert sum(map(len, first)) == sum(map(len, second)) <= 2 * IMAGES_PER_BLOCK
    asked.clear()
    next(waves(blocks_of(todo())))
    assert len(asked) <= sum(map(len, first)) + 1


@pytest.fixture(scope="module")
def fused(
    small_ray: None, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, float]:
    """Scores of 40 pictures, scored in three waves."""
    folder = tmp_path_factory.mktemp("fused")
    settings = stage_settings(tiny_checkpoint, folder / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "SCANS_PER_EXECUTION", 2 * IMAGES_PER_BLOCK)
        return scores_of(list(run_stages(pictures(folder / "in", 40), settings, FUSED)))


@pytest.mark.usefixtures("small_ray")
@pytest.mark.parametrize(
    ("placement", "plan"),
    [
        (FUSED, ["MapBatches(read_block)->MapBatches(ScoreAndPublish)"]),
        (STAGED, ["MapBatches(read_block)", "MapBatches(Score)", "MapBatches(publish_block)"]),
    ],
)
def test_the_layout_is_the_plan_that_runs(
    placement: Placement, plan: list[str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    blocks = list(blocks_of([(ref(Kind.IMAGE), META)]))
    settings = stage_settings(tiny_checkpoint, tmp_path)
    dataset = lay_out(blocks, settings, placement, Watch()).materialize()
    assert re.findall(r"^Operator \d+ (MapBatches\S+):", dataset.stats(), re.M) == plan


@pytest.mark.usefixtures("small_ray")
def test_staged_scores_are_those_of_the_fused_layout_and_publishing_keeps_up(
    fused: dict[str, float],
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = NotingWatch(unpublished=3)
    monkeypatch.setattr(stages, "Watch", lambda: watch)
    settings = stage_settings(tiny_checkpoint, tmp_path / "out")
    staged = scores_of(list(run_stages(pictures(tmp_path / "in", 40), settings, STAGED)))
    assert staged == pytest.approx(fused, abs=1e-5)
    assert len(watch.nodes("read")) == len(watch.nodes("publish")) == 5
    assert watch.nodes("waited in vain") == []


@pytest.mark.usefixtures("small_ray")
@pytest.mark.parametrize("placement", [FUSED, pytest.param(STAGED, marks=pytest.mark.slow)])
def test_a_scan_that_kills_its_process_is_given_up_and_its_mates_are_not_blamed(
    placement: Placement, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = stage_settings(tiny_checkpoint, tmp_path / "out")
    rule = DeadlyRule(settings.publisher.rule, deadly_height=21)
    publisher = dataclasses.replace(settings.publisher, rule=rule)
    settings = dataclasses.replace(settings, publisher=publisher)
    todo = [scan for n, scan in enumerate(pictures(tmp_path / "in", 14)) if n == 4 or n % 3 != 1]
    outcomes = list(run_stages(todo, settings, placement))
    failures = [outcome["failure"] for outcome in outcomes if "failure" in outcome]
    assert [(one["scan_id"], one["error_class"]) for one in failures] == [
        ("image-4", "FatalScanError")
    ]
    scored = [outcome["record"]["scan_id"] for outcome in outcomes if "record" in outcome]
    assert sorted([*scored, "image-4"]) == sorted(ref.scan_id for ref, _ in todo)
