import hashlib
import zlib

import check_ranking
import make_archive
import nibabel as nib
import numpy as np
import pyarrow
import pyarrow.parquet
import pydicom
import pytest
from damage import crack, missing_piece, scratch, stain
from make_series import AXIAL_SHAPE, axial_affine, write_mr_series
from PIL import Image, ImageOps, UnidentifiedImageError


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "archive"
    truth = root.with_name("archive_truth")
    pairs = make_archive.make_archive(root, truth)
    return root, truth, pairs


def digests(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def load_image(path):
    """As a person sees it: upright, float 0…1."""
    image = ImageOps.exif_transpose(Image.open(path))
    scale = 65535 if image.mode.startswith("I") else 255
    return np.asarray(image, dtype=np.float64) / scale


def load_series(folder):
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def test_same_seed_gives_same_bytes(archive, tmp_path):
    root, truth, _ = archive
    make_archive.make_archive(tmp_path / "archive", tmp_path / "truth")
    assert digests(root) == digests(tmp_path / "archive")
    assert digests(truth) == digests(tmp_path / "truth")


def test_archive_is_small(archive):
    assert sum(path.stat().st_size for path in archive[0].rglob("*")) < 30e6


def test_every_pair_exists_and_has_a_mask(archive):
    root, truth, pairs = archive
    assert len(pairs) == 11
    assert check_ranking.read_pairs(truth / "pairs.csv") == pairs
    for clean, defective in pairs:
        assert (root / clean).exists()
        assert (root / defective).exists()
    masks = [path for path in truth.rglob("*") if path.suffix in (".png", ".gz")]
    assert len(masks) == len(pairs)


def test_masks_lie_outside_the_archive(archive):
    root, truth, _ = archive
    assert root not in truth.parents
    assert not list(root.rglob("*mask*"))


def image_pairs():
    return range(len(make_archive.PHOTOGRAPHS))


@pytest.mark.parametrize("number", image_pairs())
def test_image_twins_differ_where_the_mask_says(archive, number):
    root, truth, pairs = archive
    clean, defective = pairs[2 + number]
    mask = np.asarray(Image.open((truth / defective).with_suffix(".png"))) > 0
    before, after = load_image(root / clean), load_image(root / defective)
    assert before.shape == after.shape
    assert before.shape[:2] == mask.shape
    change = np.abs(after - before).reshape(*mask.shape, -1).max(axis=2)
    assert 0.005 < mask.mean() < 0.2
    assert change[mask].mean() > 0.1
    assert change[~mask].mean() < 0.02


def test_images_are_stored_in_many_ways(archive):
    images = [Image.open(path) for path in (archive[0] / "images").rglob("*.*")]
    assert {image.mode for image in images} == {"RGB", "RGBA", "L", "I;16"}
    assert {image.format for image in images} == {"PNG", "JPEG"}
    turned = [image for image in images if image.getexif().get(make_archive.ORIENTATION_TAG)]
    assert len(turned) == 2


def test_nifti_twins_differ_in_a_lesion_of_the_promised_size(archive):
    root, truth, pairs = archive
    clean, defective = (nib.load(root / path) for path in pairs[0])
    mask = nib.load(truth / pairs[0].defective)
    assert np.array_equal(clean.affine, defective.affine)
    assert np.array_equal(clean.affine, mask.affine)
    assert clean.shape == defective.shape == mask.shape
    inside = np.asarray(mask.dataobj) > 0
    diameter = 2 * (3 * inside.sum() * 8 / (4 * np.pi)) ** (1 / 3)
    assert 24 <= diameter <= 34
    change = np.abs(np.asarray(clean.dataobj).astype(int) - np.asarray(defective.dataobj))
    assert change[inside].mean() > 150
    assert (change > 0).mean() < 0.06


def test_series_is_regular_and_complete(archive):
    slices = load_series(archive[0] / "dicom" / "mr_normal")
    assert len(slices) == AXIAL_SHAPE[2] >= 20
    heights = [float(s.ImagePositionPatient[2]) for s in slices]
    assert np.allclose(np.diff(heights), 6.0)
    assert len({s.SOPInstanceUID for s in slices}) == len(slices)
    assert len({s.SeriesInstanceUID for s in slices}) == 1
    assert {s.pixel_array.shape for s in slices} == {(192, 160)}
    assert {s.pixel_array.dtype for s in slices} == {np.dtype("int16")}
    assert {str(s.PatientName) for s in slices} == {"ANON^DEMO"}


def test_dicom_twins_are_two_studies(archive):
    normal, lesion = (load_series(archive[0] / "dicom" / n) for n in ("mr_normal", "mr_lesion"))
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert normal[0][keyword].value != lesion[0][keyword].value


def test_dicom_mask_lies_where_the_twins_differ(archive):
    root, truth, pairs = archive
    normal, lesion = (
        np.stack([s.pixel_array.astype(int) for s in load_series(root / folder)])
        for folder in pairs[1]
    )
    mask = nib.load(truth / "dicom" / "mr_lesion.nii.gz")
    assert nib.aff2axcodes(mask.affine) == ("L", "A", "S")
    inside = np.asarray(mask.dataobj)[:, ::-1].transpose(2, 1, 0) > 0
    change = np.abs(lesion - normal)
    assert change[inside].mean() > 5 * change[~inside].mean()
    assert change[inside].mean() > 100


def test_voxels_lie_where_dicom_says(tmp_path):
    volume = np.arange(np.prod(AXIAL_SHAPE)).reshape(AXIAL_SHAPE).astype(np.int16)
    write_mr_series(tmp_path, volume, study="test")
    slice_ = load_series(tmp_path)[5]
    assert slice_.pixel_array[7, 3] == volume[3, 7, 5]
    left, back, top = slice_.ImagePositionPatient
    row_step, column_step = slice_.PixelSpacing
    expected = [-(left + 3 * column_step), -(back + 7 * row_step), top]
    assert np.allclose((axial_affine() @ [3, 7, 5, 1])[:3], expected)


def test_packaged_series_do_not_share_identifiers(archive):
    folders = [folder for folder in (archive[0] / "dicom").iterdir() if folder.is_dir()]
    series = [
        {pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID for path in f.iterdir()}
        for f in folders
    ]
    assert all(len(uids) == 1 for uids in series)
    assert len(set.union(*series)) == len(folders)


def test_broken_files_are_unreadable(archive):
    broken = archive[0] / "broken"
    with pytest.raises(UnidentifiedImageError):
        Image.open(broken / "not_an_image.png")
    with pytest.raises((EOFError, OSError, zlib.error)):
        np.asarray(nib.load(broken / "half.nii.gz").dataobj)
    with pytest.raises((ValueError, AttributeError)):
        _ = pydicom.dcmread(broken / "truncated.dcm").pixel_array


@pytest.mark.parametrize("damage", [scratch, stain, missing_piece, crack])
@pytest.mark.parametrize("seed", range(3))
def test_damage_works_anywhere(damage, seed):
    picture = np.full((96, 96, 3), 0.5)
    damaged, mask = damage(picture, np.random.default_rng(seed))
    assert mask.any()
    assert 0 <= damaged.min() <= damaged.max() <= 1
    assert np.abs(damaged - picture)[mask].mean() > 0.05
    assert (picture == 0.5).all()


def test_find_score_needs_exactly_one_scan():
    scores = {"file:///a/images/x/good_0.png": 0.25, "/a/dicom/mr_normal/": 0.5}
    assert check_ranking.find_score(scores, "images/x/good_0.png") == 0.25
    assert check_ranking.find_score(scores, "dicom/mr_normal") == 0.5
    with pytest.raises(LookupError, match="0 scans"):
        check_ranking.find_score(scores, "ood_0.png")


@pytest.mark.parametrize(("high", "code"), [(0.9, 0), (0.1, 1), (0.05, 1)])
def test_check_ranking_exits_with_the_verdict(tmp_path, monkeypatch, capsys, high, code):
    table = pyarrow.table({"uri": ["/r/a.png", "/r/b.png"], "score": [0.1, high]})
    pyarrow.parquet.write_table(table, tmp_path / "scores.parquet")
    (tmp_path / "pairs.csv").write_text("clean,defective\na.png,b.png\n")
    command = ["check_ranking.py", "--scores", str(tmp_path / "scores.parquet")]
    monkeypatch.setattr("sys.argv", [*command, "--pairs", str(tmp_path / "pairs.csv")])
    with pytest.raises(SystemExit) as verdict:
        check_ranking.main()
    assert verdict.value.code == code
    assert f"{1 - code} of 1" in capsys.readouterr().out
