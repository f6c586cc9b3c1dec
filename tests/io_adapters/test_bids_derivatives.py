"""Maps as BIDS derivatives: names that BIDS knows, values that are what the sidecar says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_dataset import AFFINE, SCANS, errors_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from io_adapters import storage
from io_adapters.bids_derivatives import Derivatives, ForeignDatasetError, target, to_unit
from io_adapters.nifti import encode_nifti

HEAT = (0.25, 0.5)


def record_of(results: Path, array: np.ndarray) -> dict:
    results.mkdir(exist_ok=True)
    (results / "map.nii.gz").write_bytes(encode_nifti(array, AFFINE))
    return {"scan_id": "nifti-1", "score": 0.5, "fingerprint": "f1", "map": "map.nii.gz"}


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (SCANS[0], "sub-01/anat/sub-01_space-orig_desc-anomaly"),
        (SCANS[1], "sub-01/func/sub-01_task-rest_run-2_space-orig_desc-anomaly"),
        (SCANS[2], "sub-02/ses-a/anat/sub-02_ses-a_acq-DoeJohn_space-orig_desc-anomalyT2w"),
        ("sub-1/anat/sub-1_inv-2_MP2RAGE.nii",
         "sub-1/anat/sub-1_space-orig_desc-anomalyInv2MP2RAGE"),
        ("sub-1/dwi/sub-1_dir-AP_dwi.nii", "sub-1/dwi/sub-1_dir-AP_space-orig_desc-anomaly"),
        ("sub-1/perf/sub-1_asl.nii", None),
        ("sub-1/anat/T1w.nii", None),
    ],
)  # fmt: skip
def test_names_are_those_that_bids_gives_to_segmentations(path: str, expected: str | None) -> None:
    assert target(f"/ds/{path}", keep_ids=True) == expected


def test_hashed_names_hold_no_label_that_a_site_chose() -> None:
    hashed = [target(f"/ds/{path}", keep_ids=False) or "" for path in SCANS]
    subjects = [path.split("/")[0] for path in hashed]
    assert subjects[0] == subjects[1] != subjects[2] == subjects[3]
    assert hashed[1].endswith("_run-2_space-orig_desc-anomaly")
    labels = {part.partition("-")[2] for path in hashed for part in re.split("[/_]", path)}
    assert not labels & {"01", "02", "a", "b", "rest", "DoeJohn"}
    long = target("/ds/sub-1/func/sub-1_task-2_run-19591231_bold.nii", keep_ids=False) or ""
    assert "task-2" in long and "19591231" not in long


def test_the_key_and_the_dataset_change_hashed_names(monkeypatch: pytest.MonkeyPatch) -> None:
    before = target(f"/ds/{SCANS[0]}", keep_ids=False)
    assert before != target(f"/other/{SCANS[0]}", keep_ids=False)
    monkeypatch.setenv("ZSAD_ID_KEY", "secret")
    assert before != target(f"/ds/{SCANS[0]}", keep_ids=False)


@settings(deadline=None)  # a busy machine is no failure
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=3, max_dims=4, max_side=4)),
    st.tuples(st.floats(-5, 5, width=32), st.floats(0.125, 5, width=32)),
)
def test_the_unit_scale_is_the_clipped_highest_volume(
    array: np.ndarray, start_and_length: tuple[float, float]
) -> None:
    low, length = start_and_length
    heat = (low, low + length)
    unit = to_unit(array, heat)
    assert unit.dtype == np.float32 and unit.shape == array.shape[:3]
    for index in np.ndindex(unit.shape):
        values = np.atleast_1d(array[index]).astype(np.float64)
        values = values[~np.isnan(values)]
        place = (values.max() - heat[0]) / (heat[1] - heat[0]) if values.size else 0
        assert unit[index] == pytest.approx(min(max(place, 0), 1), abs=1e-3)


def test_probseg_and_mask_are_on_the_grid_of_the_map(tmp_path: Path) -> None:
    array = np.linspace(0, 1, 12 * 10 * 6).reshape(12, 10, 6).astype(np.float32)
    array[0, 0, 5] = np.nan
    out = Derivatives(output=str(tmp_path / "bids"), heat=HEAT, keep_ids=True)
    assert out.write_scan(f"/ds/{SCANS[0]}", str(tmp_path), record_of(tmp_path, array))
    base = tmp_path / "bids" / "sub-01/anat/sub-01_space-orig_desc-anomaly"
    probseg, mask = nib.load(f"{base}_probseg.nii.gz"), nib.load(f"{base}_mask.nii.gz")
    for image in (probseg, mask):
        np.testing.assert_array_equal(image.affine, AFFINE)
    assert (probseg.get_data_dtype(), mask.get_data_dtype()) == (np.float32, np.uint8)
    expected = np.clip((np.nan_to_num(array) - 0.25) / 0.25, 0, 1)
    np.testing.assert_allclose(probseg.get_fdata(), expected, atol=1e-3)
    np.testing.assert_array_equal(mask.get_fdata(), np.nan_to_num(array) > 0.25)


def test_sidecars_name_the_source_only_with_kept_ids(tmp_path: Path) -> None:
    record = record_of(tmp_path, np.ones((4, 4, 4)))
    for keep_ids in (True, False):
        folder = tmp_path / str(keep_ids)
        out = Derivatives(output=str(folder), heat=HEAT, keep_ids=keep_ids)
        out.write_scan(f"/ds/{SCANS[2]}", str(tmp_path), record)
        out.write_dataset("/ds")
        written = "".join(path.read_text() for path in folder.rglob("*.json"))
        assert (f"bids:raw:{SCANS[2]}" in written) is keep_ids
        assert ("file:///ds" in written) is keep_ids
        for path in folder.rglob("*_mask.json"):
            fields = json.loads(path.read_text())
            assert fields["SpatialReference"] == "orig" and fields["HeatRange"] == [0.25, 0.5]
            assert (fields["ScanId"], fields["ScanScore"]) == ("nifti-1", 0.5)


def test_what_is_there_stays_and_what_changed_is_written_again(tmp_path: Path) -> None:
    record = record_of(tmp_path, np.ones((4, 4, 4)))
    out = Derivatives(output=str(tmp_path / "bids"), heat=HEAT, keep_ids=True)
    uri = f"/ds/{SCANS[0]}"
    assert out.write_scan(uri, str(tmp_path), record)
    assert not out.write_scan(uri, str(tmp_path), record)
    assert out.write_scan(uri, str(tmp_path), record | {"fingerprint": "f2"})
    hotter = Derivatives(output=out.output, heat=(0.5, 0.75), keep_ids=True)
    assert hotter.write_scan(uri, str(tmp_path), record | {"fingerprint": "f2"})


def test_a_scan_is_complete_only_with_its_last_file(tmp_path: Path) -> None:
    record = record_of(tmp_path, np.ones((4, 4, 4)))
    out = Derivatives(output=str(tmp_path / "bids"), heat=HEAT, keep_ids=True)
    out.write_scan(f"/ds/{SCANS[0]}", str(tmp_path), record)
    everything = files_of(tmp_path / "bids")
    (commit,) = (tmp_path / "bids").rglob("*_mask.json")
    commit.unlink()
    assert out.write_scan(f"/ds/{SCANS[0]}", str(tmp_path), record)
    assert files_of(tmp_path / "bids") == everything


@pytest.mark.parametrize("keep_ids", [True, False])
def test_every_name_and_sidecar_is_valid(tmp_path: Path, keep_ids: bool) -> None:
    out = Derivatives(output=str(tmp_path / "bids"), heat=HEAT, keep_ids=keep_ids)
    record = record_of(tmp_path, np.linspace(0, 1, 4 * 5 * 6 * 2).reshape(4, 5, 6, 2))
    names = [
        "anat/{}_task-x_acq-a_ce-b_rec-c_run-1_echo-2_part-mag_chunk-1_T2starw",
        "anat/{}_mod-T1w_FLAIR",
        "anat/{}_inv-1_part-mag_MP2RAGE",
        "anat/{}_flip-2_mt-on_MPM",
        "func/{}_task-rest_acq-a_ce-b_rec-c_dir-AP_run-1_echo-1_part-mag_chunk-2_bold",
        "func/{}_task-rest_sbref",
        "dwi/{}_acq-a_rec-b_dir-PA_run-0123_part-mag_chunk-1_dwi",
        "dwi/{}_dir-PA_sbref",
        "dwi/{}_FA",
    ]
    written = 0
    for prefix in ("sub-01", "sub-02_ses-x"):
        for name in names:
            path = f"{prefix.replace('_', '/')}/{name.format(prefix)}.nii.gz"
            written += out.write_scan(f"/ds/{path}", str(tmp_path), record)
    out.write_dataset("/ds")
    assert written == 2 * len(names) == len(list(tmp_path.rglob("*_probseg.nii.gz")))
    assert errors_of(tmp_path / "bids") == set()


@pytest.mark.parametrize(
    "description",
    ["{}", "[]", "DoeJohn", '{"GeneratedBy": [{"Name": "other"}]}', '{"GeneratedBy": 1}'],
)
def test_another_dataset_is_never_overwritten(tmp_path: Path, description: str) -> None:
    (tmp_path / "dataset_description.json").write_text(description)
    out = Derivatives(output=str(tmp_path), heat=HEAT, keep_ids=True)
    with pytest.raises(ForeignDatasetError, match="another BIDS dataset"):
        out.write_dataset("/ds")
    assert files_of(tmp_path) == {"dataset_description.json"}


def test_our_own_dataset_is_written_again() -> None:
    out = Derivatives(output="memory:///derivatives", heat=HEAT, keep_ids=False)
    out.write_dataset("s3://bucket/ds")
    out.write_dataset("s3://bucket/ds")
    description = json.loads(storage.read_bytes("memory:///derivatives/dataset_description.json"))
    assert description["DatasetType"] == "derivative"
