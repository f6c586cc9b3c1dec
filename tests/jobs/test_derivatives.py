"""A BIDS dataset through the whole job: its scans, their studies, and derivatives that validate."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
from bids_dataset import IGNORED, SCANS, errors_of, write_dataset

from io_adapters.bids_derivatives import target
from io_adapters.nifti import inflate
from jobs.config import ScoreConfig
from jobs.ledger import Ledger
from jobs.plan import make_plan, run_settings
from jobs.score_dataset import SCORED, WRONG_USAGE, main
from jobs.settings import ConfigError
from zsad.detectors import complete_checkpoint

pytestmark = pytest.mark.usefixtures("small_ray", "without_ray")  # derivatives need it


class Scored:
    """A finished run over the dataset."""

    def __init__(self, dataset: Path, folder: Path, *options: str) -> None:
        self.dataset, self.output, self.bids = dataset, folder / "out", folder / "bids"
        self.arguments = [
            *("--input", dataset, "--output", self.output, "--bids-output", self.bids),
            *("--checkpoint", "tiny", *options),
        ]
        self.code = self.run()
        self.rows = {
            row["uri"].removeprefix(f"{dataset}/"): row
            for row in pq.read_table(self.output / "scores.parquet").to_pylist()
        }
        self.run_json = json.loads((self.output / "run.json").read_text())

    def run(self) -> int:
        return main([str(argument) for argument in self.arguments])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("raw") / "ds")


@pytest.fixture(scope="module")
def hashed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    return Scored(dataset, tmp_path_factory.mktemp("hashed"))


@pytest.fixture(scope="module")
def kept(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    return Scored(dataset, tmp_path_factory.mktemp("kept"), "--keep-ids")


def test_the_scans_of_the_dataset_are_scored_and_all_else_is_counted(hashed: Scored) -> None:
    assert hashed.code == SCORED and set(hashed.rows) == set(SCANS)
    assert sum(hashed.run_json["counts"]["ignored"].values()) == len(IGNORED)
    assert hashed.run_json["counts"]["ignored"]["BIDS derivatives"] == 2


def test_rows_have_study_suffix_and_class_of_bids(hashed: Scored) -> None:
    rows = [hashed.rows[name] for name in SCANS]
    assert [row["modality"] for row in rows] == ["T1w", "bold", "T2w", "T1w"]
    assert {row["class_name"] for row in rows} == {"brain"}
    assert rows[0]["study_id"] == rows[1]["study_id"]
    assert len({row["study_id"] for row in rows}) == 3
    assert "4d" in rows[1]["flags"]


@pytest.mark.parametrize("run", ["hashed", "kept"])
def test_derivatives_are_valid(run: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(run).bids
    assert errors_of(folder) == set()


def test_the_validator_would_find_an_error(kept: Scored, tmp_path: Path) -> None:
    for path in kept.bids.rglob("*.*"):
        copy = tmp_path / path.relative_to(kept.bids)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (probseg,) = tmp_path.rglob("sub-01_space-orig_desc-anomaly_probseg.nii.gz")
    probseg.rename(probseg.with_name("sub-01_desc-anomaly_map.nii.gz"))
    assert "NOT_INCLUDED" in errors_of(tmp_path)


def test_derivatives_hold_the_maps_of_their_sources(kept: Scored) -> None:
    low, high = kept.run_json["model"]["heat"]
    for name in SCANS:
        source = nib.load(kept.dataset / name)
        stored = nib.load(kept.output / kept.rows[name]["map"]).get_fdata()
        highest = stored if stored.ndim == 3 else np.nanmax(stored, axis=3)
        expected = np.clip((np.nan_to_num(highest, nan=low) - low) / (high - low), 0, 1)
        base = kept.bids / str(target(f"/{name}", keep_ids=True))
        probseg, mask = (nib.load(f"{base}_{suffix}.nii.gz") for suffix in ("probseg", "mask"))
        assert probseg.shape == mask.shape == source.shape[:3]
        np.testing.assert_array_equal(probseg.affine, source.affine)
        np.testing.assert_allclose(probseg.get_fdata(), expected, atol=1e-3)
        np.testing.assert_array_equal(mask.get_fdata() > 0, probseg.get_fdata() > 0)


def test_hashed_derivatives_name_neither_subject_nor_source(hashed: Scored) -> None:
    paths = [path for path in hashed.bids.rglob("*") if path.is_file()]
    labels = {part for path in paths for part in path.name.split(".")[0].split("_")}
    assert not labels & {"sub-01", "sub-02", "ses-a", "ses-b", "task-rest", "acq-DoeJohn"}
    for path in paths:
        told = str(path.relative_to(hashed.bids)).encode() + inflate(path.read_bytes())
        assert b"DoeJohn" not in told and bytes(hashed.dataset) not in told


def test_a_second_run_makes_nothing_again_but_what_is_missing(kept: Scored) -> None:
    files = {path: path.stat().st_mtime_ns for path in kept.bids.rglob("sub-*.*")}
    lost = kept.bids / "sub-01/anat/sub-01_space-orig_desc-anomaly_mask.json"
    lost.unlink()
    assert kept.run() == SCORED
    again = {path: path.stat().st_mtime_ns for path in kept.bids.rglob("sub-*.*")}
    assert set(again) == set(files)
    written = {path.parent for path in files if again[path] != files[path]}
    assert written == {lost.parent}


# What cannot be made is said before anything is scored


def plan_of(tmp_path: Path, *inputs: Path) -> None:
    config = ScoreConfig(
        input=tuple(str(path) for path in inputs),
        output=str(tmp_path / "out"),
        bids_output=str(tmp_path / "bids"),
        checkpoint="tiny",
    )
    with Ledger.open() as ledger:
        make_plan(config, run_settings(config, complete_checkpoint("tiny")), ledger)


def test_inputs_that_are_not_bids_have_no_derivatives(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no input is an anat, func or dwi volume"):
        plan_of(tmp_path, archive)


def test_derivatives_are_of_one_dataset(dataset: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other")
    with pytest.raises(ConfigError, match="hold 2 datasets"):
        plan_of(tmp_path, dataset, other)


def test_two_volumes_never_share_derivatives(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "ds")
    first = root / SCANS[0]
    nib.save(nib.load(first), str(first).removesuffix(".gz"))
    with pytest.raises(ConfigError, match=r"\.nii and \.nii\.gz"):
        plan_of(tmp_path, root)


def test_the_source_dataset_is_never_the_output(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (dataset / "dataset_description.json").read_bytes()
    arguments = ["--input", dataset, "--output", tmp_path / "out", "--checkpoint", "tiny"]
    for output, message in (
        (dataset, "another BIDS dataset"),
        (tmp_path / "out", "another folder than --output"),
    ):
        assert main([*map(str, arguments), "--bids-output", str(output)]) == WRONG_USAGE
        assert message in capsys.readouterr().err
    assert (dataset / "dataset_description.json").read_bytes() == before
