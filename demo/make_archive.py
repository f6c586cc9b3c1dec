"""Make a small mixed archive from what installed packages ship; nothing is downloaded.

    python demo/make_archive.py --output build/archive

The archive holds scans of every kind that a real one does, some of them broken, and pairs of
scans that differ in one defect. What was changed is written next to it, into
`build/archive_truth`: a mask for each defective scan, and `pairs.csv`. The same seed gives the
same bytes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import nilearn.datasets
import numpy as np
import pydicom
import skimage
from damage import BRIGHT, RING, Damage, add_lesion, crack, missing_piece, scratch, stain
from make_series import AXIAL_SHAPE, as_converted, axial_affine, write_mr_series
from PIL import Image
from scipy import ndimage

PYDICOM_FILES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "693_J2KI.dcm",  # CT of a head, JPEG 2000
    "examples_overlay.dcm",  # MR of an abdomen
    "examples_ybr_color.dcm",  # ultrasound in colour, 30 frames
)
CROP = 256  # side of the images in pixels
ORIENTATION_TAG, QUARTER_TURN = 274, 6  # EXIF: "turn clockwise by 90° to see it upright"


class Pair(NamedTuple):
    """Two scans that differ in one defect, as paths relative to the archive."""

    clean: str
    defective: str


class Photograph(NamedTuple):
    """A crop of a packaged picture, its defect, and how the pair is stored."""

    class_name: str
    corner: tuple[int, int]
    damage: Damage
    save: Callable[[Path, np.ndarray], str]


def make_archive(root: Path, truth: Path, seed: int = 0) -> list[Pair]:
    """Write the archive to `root` and the truth about it to `truth`; returns the pairs."""
    copy_packaged_dicom(root / "dicom")
    copy_packaged_nifti(root / "nifti")
    pairs = make_nifti_brains(root, truth, seed)
    pairs += make_dicom_brains(root, truth, seed)
    pairs += make_images(root, truth, seed)
    make_broken(root / "broken", root / "dicom" / "mr_normal", root / "nifti")
    with (truth / "pairs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([Pair._fields, *pairs])
    with (truth / "classes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "class_name"), *class_names(pairs)])
    return pairs


def class_names(pairs: list[Pair]) -> list[tuple[str, str]]:
    """Return what the paired scans show: photographs lie in a folder of that name."""
    paths = [path for pair in pairs for path in pair]
    return [
        (path, Path(path).parent.name if path.startswith("images/") else "brain") for path in paths
    ]


def copy_packaged_dicom(folder: Path) -> None:
    """Copy the DICOM files of pydicom's and nibabel's own tests, one folder a series."""
    # By path: pydicom.data.get_testdata_file would download what the package does not hold.
    source = Path(pydicom.__file__).parent / "data" / "test_files"
    for name in PYDICOM_FILES:
        _copy(source / name, folder / name.removesuffix(".dcm").lower() / name)
    name = "slicethickness_empty_string.dcm"
    _copy(
        Path(nib.__file__).parent / "nicom" / "tests" / "data" / name, folder / "mr_cropped" / name
    )


def copy_packaged_nifti(folder: Path) -> None:
    """Copy nibabel's example of a 4-D scan."""
    name = "example4d.nii.gz"
    _copy(Path(nib.__file__).parent / "tests" / "data" / name, folder / name)


def make_nifti_brains(root: Path, truth: Path, seed: int) -> list[Pair]:
    """Write the MNI152 template at 2 mm, as it is and with a ring-shaped lesion."""
    template, fine = _load_template()
    volume = template[::2, ::2, ::2]
    affine = fine @ np.diag([2, 2, 2, 1])
    changed, mask = add_lesion(volume, affine, RING, np.random.default_rng([seed, 1]))
    pair = Pair("nifti/brain_normal.nii.gz", "nifti/brain_lesion.nii.gz")
    for name, content in zip(pair, (volume, changed), strict=True):
        _save_nifti(root / name, np.rint(content * 1000).astype(np.int16), affine)
    _save_nifti(truth / pair.defective, mask.astype(np.uint8), affine)
    return [pair]


def make_dicom_brains(root: Path, truth: Path, seed: int) -> list[Pair]:
    """Write the template as two MR series of thick axial slices, one with a bright lesion."""
    template, affine = _load_template()
    # Thick slices average over their thickness, as a scanner's do.
    averaged = ndimage.uniform_filter1d(template, 6, axis=2)
    lookup = np.linalg.inv(affine) @ axial_affine()
    volume = ndimage.affine_transform(averaged, lookup, output_shape=AXIAL_SHAPE, order=1)
    changed, mask = add_lesion(volume, axial_affine(), BRIGHT, np.random.default_rng([seed, 2]))
    pair = Pair("dicom/mr_normal", "dicom/mr_lesion")
    for name, content in zip(pair, (volume, changed), strict=True):
        stored = np.rint(content * 1000).astype(np.int16)
        write_mr_series(root / name, stored, study=f"{name} {seed}")
    _save_nifti(truth / f"{pair.defective}.nii.gz", *as_converted(mask.astype(np.uint8)))
    return [pair]


def make_images(root: Path, truth: Path, seed: int) -> list[Pair]:
    """Write crops of scikit-image's textures, each as it is and with one defect."""
    pairs = []
    for number, photograph in enumerate(PHOTOGRAPHS):
        name, corner, damage, save = photograph
        folder = Path("images") / name
        count = sum(earlier.class_name == name for earlier in PHOTOGRAPHS[:number])
        clean = _load_crop(name, corner)
        damaged, mask = damage(clean, np.random.default_rng([seed, 3, number]))
        pair = Pair(
            *(
                (folder / save(root / folder / f"{state}_{count}", picture)).as_posix()
                for state, picture in (("good", clean), ("defect", damaged))
            )
        )
        target = (truth / pair.defective).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(target)
        pairs.append(pair)
    return pairs


def make_broken(folder: Path, series: Path, nifti: Path) -> None:
    """Write files that nobody can read: a cut DICOM, a cut NIfTI, a text that claims to be PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    # New identifiers, or the file would be taken for a damaged slice of the series it is cut from.
    whole = pydicom.dcmread(min(series.iterdir()))
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        whole[keyword].value = pydicom.uid.generate_uid(entropy_srcs=["broken", keyword])
    whole.file_meta.MediaStorageSOPInstanceUID = whole.SOPInstanceUID
    target = folder / "truncated.dcm"
    whole.save_as(target, enforce_file_format=True)
    _halve(target, target)
    _halve(nifti / "brain_normal.nii.gz", folder / "half.nii.gz")
    (folder / "not_an_image.png").write_text("This is a note, whatever its name says.\n")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _halve(source: Path, target: Path) -> None:
    content = source.read_bytes()
    target.write_bytes(content[: len(content) // 2])


def _load_template() -> tuple[np.ndarray, np.ndarray]:
    """Return the packaged MNI152 T1 template (197, 233, 189) in 0…1 at 1 mm and its affine."""
    template = nilearn.datasets.load_mni152_template(resolution=1)
    return np.asarray(template.dataobj, dtype=np.float32), np.asarray(template.affine)


def _load_crop(name: str, corner: tuple[int, int]) -> np.ndarray:
    """Return a crop of a packaged grey texture as (CROP, CROP, 3) float in 0…1."""
    path = Path(skimage.__file__).parent / "data" / f"{name}.png"
    row, column = corner
    grey = np.asarray(Image.open(path).convert("L"))[row : row + CROP, column : column + CROP]
    return np.repeat(grey[..., None] / 255.0, 3, axis=2)


def _save_nifti(path: Path, content: np.ndarray, affine: np.ndarray) -> None:
    """Write a compressed NIfTI file without a time stamp in it."""
    image = nib.Nifti1Image(content, affine)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(picture * 255), dtype=np.uint8)


def _save(image: Image.Image, path: Path, **options: object) -> str:
    """Write an image, making its folder; returns the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)  # type: ignore[arg-type]
    return path.name


def save_rgb(stem: Path, picture: np.ndarray) -> str:
    """Write an ordinary PNG; returns the file's name, as the others do."""
    return _save(Image.fromarray(_to_bytes(picture)), stem.with_suffix(".png"))


def save_grey(stem: Path, picture: np.ndarray) -> str:
    """Write an 8-bit PNG with one channel."""
    return _save(Image.fromarray(_to_bytes(picture)).convert("L"), stem.with_suffix(".png"))


def save_grey16(stem: Path, picture: np.ndarray) -> str:
    """Write a 16-bit PNG with one channel."""
    deep = np.rint(picture.mean(axis=2) * 65535).astype(np.uint16)
    return _save(Image.fromarray(deep), stem.with_suffix(".png"))


def save_rgba(stem: Path, picture: np.ndarray) -> str:
    """Write a PNG with an (opaque) alpha channel."""
    image = Image.fromarray(_to_bytes(picture))
    image.putalpha(255)
    return _save(image, stem.with_suffix(".png"))


def save_turned_jpeg(stem: Path, picture: np.ndarray) -> str:
    """Write a JPEG stored lying on its side, with the EXIF tag that says so."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = QUARTER_TURN
    image = Image.fromarray(np.ascontiguousarray(np.rot90(_to_bytes(picture))))
    return _save(image, stem.with_suffix(".jpg"), quality=92, exif=exif)


PHOTOGRAPHS = (
    Photograph("brick", (0, 0), scratch, save_rgb),
    Photograph("brick", (220, 40), stain, save_grey16),
    Photograph("brick", (100, 240), missing_piece, save_rgba),
    Photograph("grass", (0, 250), missing_piece, save_turned_jpeg),
    Photograph("grass", (230, 0), stain, save_rgb),
    Photograph("grass", (250, 250), crack, save_grey),
    Photograph("gravel", (0, 0), scratch, save_rgb),
    Photograph("gravel", (128, 250), missing_piece, save_grey),
    Photograph("gravel", (250, 100), crack, save_rgb),
)


def main() -> None:
    """Parse the command line, write the archive, say how large it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the archive")
    parser.add_argument("--seed", type=int, default=0, help="decides on places and shapes")
    arguments = parser.parse_args()
    truth = arguments.output.with_name(f"{arguments.output.name}_truth")
    pairs = make_archive(arguments.output, truth, arguments.seed)
    files = [path for path in arguments.output.rglob("*") if path.is_file()]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    print(f"{arguments.output}: {len(files)} files, {megabytes:.1f} MB, {len(pairs)} pairs")


if __name__ == "__main__":
    main()
