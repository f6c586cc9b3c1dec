"""How scans are laid out for Ray, and how reading ends for a bad one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from io_adapters.scan import FileRef, Kind, ScanRef
from jobs.dicom_results import DicomSettings
from jobs.scoring import ScorerSettings
from jobs.stages import BLOCK_BYTES, IMAGES_PER_BLOCK, blocks_of, lay_out, read_row


def ref(kind: Kind, number: int = 0, size: int = 1000) -> ScanRef:
    file = FileRef(uri=f"/nowhere/{number}", size=size, version="1")
    name = f"{kind.value}-{number}"
    return ScanRef(kind=kind, uri=file.uri, files=(file,), scan_id=name, study_id=name, label=name)


def names(refs: list[ScanRef]) -> list[list[str]]:
    tables = blocks_of(refs, [{}] * len(refs))
    return [[ScanRef.from_json(r).scan_id for r in table["ref"].to_pylist()] for table in tables]


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
    row = read_row({"ref": ref(Kind.IMAGE).to_json(), "meta": meta})
    assert row["display"].shape == (0, 0, 0, 1)
    assert row["display"].dtype == np.uint8
    failure = json.loads(row["failure"])["failure"]
    assert (failure["stage"], failure["scan_id"]) == ("read", "image-0")


@pytest.mark.usefixtures("small_ray")
def test_reading_is_fused_into_the_scoring_actor_on_one_machine(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = ScorerSettings(
        workers=1,
        checkpoint=str(tiny_checkpoint),
        clip=None,
        precision="fp32",
        batch_size=2,
        threads=1,
        output=str(tmp_path),
        dicom=DicomSettings(outputs=(), method="aaclip", model_digest="0", seed="0"),
    )
    dataset = lay_out([ref(Kind.IMAGE)], [{"plane": "acquired"}], settings).materialize()
    assert dataset.count() == 1
    assert "Map(read_row)->MapBatches(Scorer)" in dataset.stats()
