"""How a volume is scored: planes, crops and windows, and its results on the native grid."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import OBLIQUE, make_series, ref_of, write_files

from io_adapters.dicom_output.findings import DicomOutput
from io_adapters.planes import turned
from io_adapters.scan import Geometry, Kind, Plane, ScanRef
from jobs.dicom_results import AXES, FLIPS, DicomSettings
from jobs.in_flight import fuse
from jobs.publishing import Publisher, PublisherSettings
from jobs.reading import read_row
from jobs.rows import column
from jobs.scoring import Scorer, ScorerSettings
from zsad.checkpoints import load_checkpoint
from zsad.detectors import score_rule
from zsad.detectors.aaclip import AAClipRule
from zsad.scores import pool_slices

META = {
    "class_name": "scan",
    "domain": "medical",
    "plane": "acquired",
    "window": "auto",
    "crop": "none",
    "fingerprint": "f",
}
AFFINE = np.array([[-2, 0, 0, 9], [0, 2, 0, -7], [0, 0, 3.5, 1], [0, 0, 0, 1.0]])
RNG = np.random.default_rng(0)
BRAIN = RNG.integers(50, 900, (12, 10, 9)).astype(np.int16)
HEAD = np.full((12, 24, 26), -1000, np.int16)
"""The same in Hounsfield units, with air around it."""
HEAD[:, 4:14, 6:15] = BRAIN // 3 - 100


class Result:
    """A committed scan."""

    def __init__(self, folder: Path, outcome: dict[str, Any]) -> None:
        assert "record" in outcome, outcome
        self.record = outcome["record"]
        self.folder = folder / Path(self.record["map"]).parent
        self.map = nib.load(folder / self.record["map"])

    @property
    def values(self) -> np.ndarray:
        return np.asarray(self.map.dataobj)

    def dicom(self, name: str) -> pydicom.Dataset:
        return pydicom.dcmread(io.BytesIO((self.folder / name).read_bytes()))


class Lab:
    """The stages without Ray."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        self.folder = folder
        self.settings = PublisherSettings(
            rule=score_rule(load_checkpoint(checkpoint)),
            output=str(folder / "out"),
            dicom=DicomSettings(outputs=(), method="aaclip", model_digest="0" * 64, seed="0"),
        )
        model = ScorerSettings(
            checkpoint=str(checkpoint), clip=None, precision="fp32", batch_size=4
        )
        self.scorer = Scorer(model, threads=1, on_gpu=False)

    def score(self, *refs: ScanRef, dicom: str = "", **meta: str) -> list[Result]:
        outputs = tuple(DicomOutput(name) for name in dicom.split(",") if name)
        wanted = dataclasses.replace(self.settings.dicom, outputs=outputs)
        publisher = Publisher(dataclasses.replace(self.settings, dicom=wanted))
        described = json.dumps(META | meta)
        rows = [read_row({"ref": r.to_json(), "meta": described, "failure": ""}) for r in refs]
        batch = {key: column([row[key] for row in rows]) for key in rows[0]}
        outcomes = publisher(self.scorer(batch))["outcome"]
        return [Result(Path(self.settings.output), json.loads(text)) for text in outcomes]

    def nifti(self, array: np.ndarray, affine: np.ndarray = AFFINE, name: str = "a") -> ScanRef:
        path = self.folder / f"{name}.nii"
        nib.save(nib.Nifti1Image(array, affine), path)
        return dataclasses.replace(ref_of(Kind.NIFTI, path), scan_id=name)


@pytest.fixture
def lab(tiny_checkpoint: Path, tmp_path: Path) -> Lab:
    return Lab(tiny_checkpoint, tmp_path)


def test_all_planes_are_the_mean_of_each(lab: Lab) -> None:
    ref = lab.nifti(BRAIN)
    (fused,) = lab.score(ref, plane="all")
    planes = {name: lab.score(ref, plane=name)[0] for name in ("axial", "coronal", "sagittal")}
    maps = [planes[name].values for name in planes]
    np.testing.assert_allclose(fused.values, np.mean(maps, axis=0), rtol=2**-10)
    scores = {name: planes[name].record["score"] for name in planes}
    assert fused.record["plane_scores"] == pytest.approx(scores)
    assert fused.record["score"] == pytest.approx(np.mean(list(scores.values())))
    assert fused.record["slice_scores"] == planes["axial"].record["slice_scores"]
    np.testing.assert_array_equal(fused.map.affine, AFFINE)
    assert fused.map.shape == BRAIN.shape


def test_all_volumes_of_a_4d_scan_are_scored_in_all_planes(lab: Lab) -> None:
    both = np.stack([BRAIN, BRAIN[::-1]], axis=-1)
    (fused,) = lab.score(lab.nifti(both), plane="all", window="0,900")
    (alone,) = lab.score(lab.nifti(BRAIN, name="b"), plane="all", window="0,900")
    assert fused.map.shape == both.shape
    np.testing.assert_allclose(fused.values[..., 0], alone.values, atol=2**-10)


def test_thick_slices_are_scored_in_their_own_plane(lab: Lab) -> None:
    ref = lab.nifti(BRAIN, np.diag([1, 1, 5, 1.0]))
    (asked,), (plain,) = lab.score(ref, plane="all"), lab.score(ref)
    np.testing.assert_array_equal(asked.values, plain.values)
    assert asked.record["score"] == plain.record["score"]
    assert asked.record["flags"] == ["one_plane"]


def test_a_scan_s_result_does_not_depend_on_its_batch_mates(lab: Lab) -> None:
    one, two = lab.nifti(BRAIN), lab.nifti(BRAIN[::-1].copy(), name="b")
    together = lab.score(one, two, plane="all")
    alone = [*lab.score(one, plane="all"), *lab.score(two, plane="all")]
    for result, single in zip(together, alone, strict=True):
        np.testing.assert_allclose(result.values, single.values, atol=2**-10)


def test_what_one_plane_does_not_show_has_the_others_values() -> None:
    axial = Geometry(affine=np.eye(4), shape=(2, 3, 4), axes=(2, 1, 0), flips=(False,) * 3)
    coronal = turned(axial, Plane.CORONAL)
    first, second = np.full((4, 3, 2), 1, np.float16), np.full((3, 4, 2), 3, np.float16)
    first[0], first[1], second[0] = np.nan, np.nan, np.nan
    fused = fuse([first, second], [axial, coronal])
    native = axial.to_native(fused)
    seen = coronal.to_native(second)
    np.testing.assert_array_equal(native[..., :2][np.isfinite(seen[..., :2])], 3)
    assert np.isnan(native[..., :2][np.isnan(seen[..., :2])]).all()
    np.testing.assert_array_equal(native[..., 2:][np.isnan(seen[..., 2:])], 1)
    np.testing.assert_array_equal(native[..., 2:][np.isfinite(seen[..., 2:])], 2)


@pytest.mark.parametrize("plane", ["acquired", "all", "sagittal"])
def test_a_crop_is_scored_as_if_nothing_else_were_there(lab: Lab, plane: str) -> None:
    padded = np.zeros((40, 36, 30), np.int16)
    part = (slice(10, 22), slice(8, 18), slice(15, 24))
    padded[part] = BRAIN
    (cropped,) = lab.score(lab.nifti(padded), plane=plane, crop="foreground", window="0,900")
    (alone,) = lab.score(lab.nifti(BRAIN, name="b"), plane=plane, window="0,900")
    np.testing.assert_array_equal(cropped.values[part], alone.values)
    outside = np.ones(padded.shape, bool)
    outside[part] = False
    assert np.isnan(cropped.values[outside]).all()
    assert cropped.record["score"] == alone.record["score"]
    assert cropped.record["n_slices"] == len(cropped.record["slice_scores"])
    assert cropped.record["n_scored"] == alone.record["n_scored"]
    assert cropped.record["crop"]["shape"] == cropped.record["shape"]


def test_the_window_is_recorded_and_decides(lab: Lab) -> None:
    ref = write_files(lab.folder / "ct", make_series(BRAIN))
    soft, bone, own = (lab.score(ref, window=w)[0].record for w in ("auto", "bone", "-10,700"))
    assert [record["window"] for record in (soft, bone, own)] == [
        [-160, 240],
        [-500, 1500],
        [-10, 700],
    ]
    assert len({record["score"] for record in (soft, bone, own)}) == 3


@pytest.mark.parametrize("plane", ["acquired", "sagittal", "all"])
@pytest.mark.parametrize("crop", ["none", "foreground"])
def test_dicom_results_lie_on_the_frames_whatever_was_scored(
    lab: Lab, plane: str, crop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = write_files(lab.folder / "ct", make_series(HEAD, orientation=OBLIQUE, step=0.8))
    low = float(np.nanmedian(lab.score(ref, plane=plane, crop=crop)[0].values))
    monkeypatch.setattr(AAClipRule, "heat", property(lambda _: (low, low + 1)))
    (result,) = lab.score(ref, plane=plane, crop=crop, dicom="seg,sc,pm,sr")
    assert result.record["dicom_omitted"] == {}
    assert result.record["dicom"] == sorted(p.name for p in result.folder.glob("*.dcm"))
    native = Geometry(
        affine=result.map.affine, shape=result.map.shape, axes=AXES, flips=FLIPS
    ).to_slices(result.values)
    mapped = result.dicom("map.dcm")
    stored = np.frombuffer(mapped.FloatPixelData, "<f4").reshape(native.shape)
    np.testing.assert_array_equal(stored, np.nan_to_num(native, nan=np.nanmin(native)))
    segmentation = hd.seg.Segmentation.from_dataset(result.dicom("seg.dcm"))
    uids = [pydicom.dcmread(file.uri).SOPInstanceUID for file in ref.files]
    masks = segmentation.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(masks[..., 0], np.nan_to_num(native, nan=low) > low)
    assert 0 < masks.mean() < 1
    report = hd.sr.Comprehensive3DSR.from_dataset(result.dicom("report.dcm"))
    (scan,) = report.content.get_volumetric_roi_measurement_groups()
    assert scan.get_measurements()[0].value == pytest.approx(result.record["score"], abs=1e-6)
    slices = report.content.get_image_measurement_groups()
    assert bool(slices) == (plane != "sagittal")


def test_the_worst_slice_is_the_first_picture(lab: Lab) -> None:
    ref = write_files(lab.folder / "ct", make_series(BRAIN))
    (result,) = lab.score(ref, dicom="sc")
    uids = [pydicom.dcmread(file.uri).SOPInstanceUID for file in ref.files]
    first = result.dicom("sc_001.dcm").SourceImageSequence[0].ReferencedSOPInstanceUID
    assert uids.index(first) == result.record["top_slice"]


def test_a_tilted_series_has_pictures_and_a_reason(lab: Lab) -> None:
    tilted = make_series(BRAIN, step=np.array([0, 0.5, 2.0]))
    ref = write_files(lab.folder / "ct", tilted)
    (result,) = lab.score(ref, dicom="seg,sc,pm,sr")
    assert result.record["dicom"] == ["sc_001.dcm", "sc_002.dcm", "sc_003.dcm"]
    assert set(result.record["dicom_omitted"]) == {"seg", "pm", "sr"}
    assert all("tilted" in reason for reason in result.record["dicom_omitted"].values())


def test_a_nameless_series_keeps_its_map_without_dicom_results(lab: Lab) -> None:
    ref = write_files(lab.folder / "ct", make_series(BRAIN, StudyInstanceUID=""))
    (result,) = lab.score(ref, dicom="seg,sc")
    assert result.record["dicom"] == []
    assert set(result.record["dicom_omitted"]) == {"seg", "sc"}
    assert "does not name" in result.record["dicom_omitted"]["sc"]


def test_nothing_but_dicom_has_dicom_results(lab: Lab) -> None:
    (result,) = lab.score(lab.nifti(BRAIN), dicom="seg,sc,pm,sr")
    assert (result.record["dicom"], result.record["dicom_omitted"]) == ([], {})


def test_the_score_of_one_plane_is_the_pool_of_its_slices(lab: Lab) -> None:
    (result,) = lab.score(lab.nifti(BRAIN))
    assert result.record["score"] == pool_slices(result.record["slice_scores"])
