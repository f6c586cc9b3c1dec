"""A small Ray, and a small mixed archive."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import ray
from dicom_files import OBLIQUE, make_series, write_files
from PIL import Image

from io_adapters.scan import ScanRef
from jobs import run as run_module
from jobs import score_dataset
from jobs.ledger import Meta
from jobs.placement import Placement
from jobs.publishing import Publisher
from jobs.reading import read_row
from jobs.rows import blocks_of, column
from jobs.scoring import Scorer
from jobs.stages import StageSettings

RNG = np.random.default_rng(0)


@pytest.fixture(scope="session")
def small_ray() -> Iterator[None]:
    """Two CPUs, one object store of 200 MB, no dashboard."""
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def without_ray() -> Iterator[None]:
    """The stages of a run, one scan after the other in this process: for tests of all the rest.

    A worker takes ten seconds to start.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (score_dataset, run_module):
            patch.setattr(module, "connect", lambda: None)
        patch.setattr(run_module, "run_stages", stages_in_this_process)
        yield


def stages_in_this_process(
    todo: Iterable[tuple[ScanRef, Meta]], settings: StageSettings, _: Placement
) -> Iterator[dict]:
    scorer = Scorer(settings.scorer, threads=1, on_gpu=False)
    publisher = Publisher(settings.publisher)
    for block in blocks_of(todo):
        for row in map(read_row, block.to_pylist()):
            batch = {name: column([value]) for name, value in row.items()}
            (outcome,) = publisher(scorer(batch))["outcome"]
            yield json.loads(outcome)


def write_archive(folder: Path) -> Path:
    """Two pictures, a 4-D NIfTI, a DICOM file and a series, a note, and two broken files."""
    (folder / "metal_nut").mkdir(parents=True)
    grey = RNG.integers(0, 255, (40, 60), dtype=np.uint8)
    Image.fromarray(grey).save(folder / "metal_nut" / "one.png")
    Image.fromarray(RNG.integers(0, 255, (30, 30, 3), dtype=np.uint8)).save(folder / "two.png")
    affine = np.array([[-2, 0, 0, 9], [0, 2, 0, -7], [0, 0, 3.5, 1], [0, 0, 0, 1.0]])
    volume = RNG.integers(0, 900, (12, 10, 5, 2)).astype(np.int16)
    volume[:, :, 0] = 0  # a blank slice
    nib.save(nib.Nifti1Image(volume, affine), folder / "sub.nii.gz")
    packaged = Path(pydicom.__file__).parent / "data" / "test_files"
    (folder / "ct.dcm").write_bytes((packaged / "CT_small.dcm").read_bytes())
    values = RNG.integers(-500, 900, (6, 20, 24)).astype(np.int16)
    write_files(folder / "series", make_series(values, orientation=OBLIQUE))
    (folder / "notes.txt").write_text("to be ignored")
    (folder / "text.png").write_text("this is no picture")
    (folder / "half.dcm").write_bytes((packaged / "MR_small.dcm").read_bytes()[:5_000])
    return folder


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of `write_archive`."""
    return write_archive(tmp_path_factory.mktemp("archive"))
