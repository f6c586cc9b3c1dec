"""Small archives of what real ones hold, each with what must become of it, worked out by hand.

A case writes files; its truths say which scans they are, voxel by voxel. What a scanner measured is
always a volume of `dicom_files.volume`, so that a voxel in a wrong place has a wrong value.
"""

from __future__ import annotations

import gzip
import io
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dicom_files as files
import nibabel as nib
import numpy as np
import pydicom
from dicom_files import AXIAL, CORONAL, ROOT, SAGITTAL, make_instance, make_series, volume
from pydicom import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    UltrasoundMultiFrameImageStorage,
)

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"
NICOM = Path(nib.__file__).parent / "nicom" / "tests" / "data"
SPACING, STEP, ORIGIN = (0.5, 0.75), 2.0, (-10.0, 20.0, 30.0)
"""What `make_series` uses unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """One scan as it has to come out."""

    pixels: np.ndarray
    """Slices (S, H, W) or (S, H, W, 3) in the acquired plane."""
    affine: np.ndarray | None = None
    """(4, 4) from native voxels to RAS millimetres, None for what is no regular grid."""
    flags: tuple[str, ...] = ()
    invert: bool = False
    window: tuple[float, float] | None = None
    """Where the case is about it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """An archive and what must become of it."""

    name: str
    write: Callable[[Path], None]
    scans: tuple[Truth, ...] = ()
    failures: tuple[str, ...] = ()
    """Patterns of messages, of discovery or of reading."""
    ignored: dict[str, int] = field(default_factory=dict)
    oracle: str | None = None
    """Who else reads this series rightly, and has to agree: "dcm2niix" or "SimpleITK"."""


def affine_of(
    orientation: tuple[float, ...] = AXIAL,
    *,
    rows: int = 6,
    spacing: tuple[float, float] = SPACING,
    step: float | np.ndarray = STEP,
    origin: tuple[float, ...] = ORIGIN,
) -> np.ndarray:
    """Return the affine of columns, rows bottom to top and slices, by the standard's formula."""
    right, down = np.array(orientation[:3]), np.array(orientation[3:])
    stride = np.cross(right, down) * step if np.isscalar(step) else np.asarray(step)

    def where(column: int, row_from_bottom: int, k: int) -> np.ndarray:
        row = rows - 1 - row_from_bottom
        lps = np.array(origin) + right * spacing[1] * column + down * spacing[0] * row + stride * k
        return lps * (-1, -1, 1)

    corner = where(0, 0, 0)
    columns = [where(1, 0, 0) - corner, where(0, 1, 0) - corner, where(0, 0, 1) - corner, corner]
    return np.vstack([np.stack(columns, axis=1), [0, 0, 0, 1]])


def put(folder: Path, name: str, content: Dataset | bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else files.encode(content))


def write(*series: Iterable[Dataset]) -> Callable[[Path], None]:
    """Return what writes the instances of all series, renumbered, into one folder."""

    def into(folder: Path) -> None:
        for n, instance in enumerate(one for instances in series for one in instances):
            put(folder, f"{n:03}.dcm", instance)

    return into


def renamed(series: list[Dataset], start: int, **attributes: Any) -> list[Dataset]:
    """Return a series whose instances have UIDs and numbers of their own, and other attributes."""
    for n, instance in enumerate(series, start):
        instance.SOPInstanceUID, instance.InstanceNumber = f"{ROOT}3.{n}", n
        instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
        for keyword, value in attributes.items():
            setattr(instance, keyword, value)
    return series


def changed(series: list[Dataset], index: int, **attributes: Any) -> list[Dataset]:
    """Return a series of which one instance has other attributes, None for none."""
    for keyword, value in attributes.items():
        if value is None:
            delattr(series[index], keyword)
        else:
            setattr(series[index], keyword, value)
    return series


def encoded(series: list[Dataset], syntax: str) -> list[Dataset]:
    for instance in series:
        if syntax == RLELossless:
            instance.compress(RLELossless)
        elif syntax == ExplicitVRBigEndian:
            instance.PixelData = np.frombuffer(instance.PixelData, "<i2").astype(">i2").tobytes()
            instance["PixelData"].VR = "OW"
        instance.file_meta.TransferSyntaxUID = syntax
    return series


def regular(name: str, orientation: tuple[float, ...], **options: Any) -> Case:
    step = options.get("step", STEP)
    truth = Truth(
        pixels=volume() if np.all(np.asarray(step) > 0) else volume()[::-1],
        affine=affine_of(orientation, step=step)
        if step > 0
        else affine_of(orientation, step=-step, origin=_end(orientation, step)),
    )
    made = make_series(volume(), orientation=orientation, **options)
    return Case(name=name, write=write(made), scans=(truth,), oracle="dcm2niix")


def _end(orientation: tuple[float, ...], step: float) -> tuple[float, ...]:
    normal = np.cross(orientation[:3], orientation[3:])
    return tuple(np.array(ORIGIN) + 4 * step * normal)


def in_syntax(name: str, syntax: str) -> Case:
    made = encoded(make_series(volume()), syntax)
    truth = Truth(pixels=volume(), affine=affine_of())
    return Case(name=name, write=write(made), scans=(truth,), oracle="SimpleITK")


def packaged(name: str, truth: str, *, oracle: str | None = None) -> Case:
    """Return the case of a packaged file that holds the same pixels as a plain one."""
    plain = pydicom.dcmread(PACKAGED / f"{truth}.dcm")
    stored = np.frombuffer(plain.PixelData, "<i2") + int(plain.get("RescaleIntercept", 0))
    return Case(
        name=f"packaged {name}",
        write=lambda folder: put(folder, name, (PACKAGED / f"{name}.dcm").read_bytes()),
        scans=(
            Truth(
                pixels=stored.reshape(-1, plain.Rows, plain.Columns),
                affine=affine_of(
                    tuple(plain.ImageOrientationPatient),
                    rows=plain.Rows,
                    spacing=tuple(plain.PixelSpacing),
                    step=float(plain.get("SpacingBetweenSlices") or plain.SliceThickness),
                    origin=tuple(plain.ImagePositionPatient),
                ),
                flags=("derived",) if plain.ImageType[0] == "DERIVED" else (),
            ),
        ),
        oracle=oracle,
    )


# Several volumes


def volumes(count: int, **by_volume: Iterable[Any]) -> list[Dataset]:
    """Return volumes of 3 slices one after the other, attributes given volume by volume."""
    made: list[Dataset] = []
    for t in range(count):
        for instance in make_series(volume(3) + 100 * t):
            for keyword, values in by_volume.items():
                setattr(instance, keyword, list(values)[t])
            made.append(instance)
    return made


def backwards(series: list[Dataset]) -> list[Dataset]:
    """Return a series numbered from its end, so that numbers say nothing of volumes."""
    return renamed(series[::-1], 1)


def with_private(
    series: list[Dataset], group: int, creator: str, element: int, values: list[str]
) -> list[Dataset]:
    for n, instance in enumerate(series):
        instance.private_block(group, creator, create=True).add_new(element, "IS", values[n // 3])
    return series


def four_d(name: str, made: list[Dataset], *, count: int = 3, oracle: str | None = None) -> Case:
    stacked = np.concatenate([volume(3) + 100 * t for t in range(count)])
    truth = Truth(pixels=stacked, affine=affine_of(), flags=("4d",))
    return Case(name=name, write=write(made), scans=(truth,), oracle=oracle)


def clocked() -> list[Dataset]:
    made = volumes(3)
    for n, instance in enumerate(made):
        instance.TriggerTime = str(1000 * (n // 3) + 17 * (n % 3))
    return backwards(made)


# Several frames in one file


def enhanced(
    slices: np.ndarray, frames: list[dict[str, Any]], storage: str, modality: str
) -> Dataset:
    """Return an enhanced object: each frame has its own groups of attributes."""
    instance = make_instance(slices[0], SOPClassUID=storage, Modality=modality)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(instance, keyword)
    del instance.RescaleSlope, instance.RescaleIntercept
    instance.NumberOfFrames, instance.PixelData = len(slices), slices.tobytes()
    instance.SharedFunctionalGroupsSequence = [
        groups(
            PixelMeasures={
                "PixelSpacing": list(SPACING),
                "SliceThickness": "2",
                "SpacingBetweenSlices": "2",
            },
            PlaneOrientation={"ImageOrientationPatient": list(CORONAL)},
        )
    ]
    instance.PerFrameFunctionalGroupsSequence = [groups(**frame) for frame in frames]
    return instance


def groups(**named: dict[str, Any]) -> Dataset:
    whole = Dataset()
    for name, attributes in named.items():
        group = Dataset()
        for keyword, value in attributes.items():
            setattr(group, keyword, value)
        setattr(whole, f"{name}Sequence", [group])
    return whole


def at(k: int, **more: dict[str, Any]) -> dict[str, Any]:
    return {"PlanePosition": {"ImagePositionPatient": [1.0, 2.0 + 2 * k, 3.0]}} | more


def rescaled(k: int) -> dict[str, Any]:
    attributes = {"RescaleSlope": str(k + 1), "RescaleIntercept": "0.5", "RescaleType": "US"}
    content = {"InStackPositionNumber": k + 1, "DimensionIndexValues": [1, k + 1]}
    return at(k, PixelValueTransformation=attributes, FrameContent=content)


ENHANCED_AFFINE = affine_of(CORONAL, origin=(1.0, 2.0, 3.0))


def per_frame_rescale(name: str, storage: str, modality: str, oracle: str | None) -> Case:
    order = [2, 0, 1]
    made = enhanced(volume(3)[order], [rescaled(k) for k in order], storage, modality)
    pixels = volume(3) * np.array([1, 2, 3])[:, None, None] + 0.5
    return Case(
        name=name,
        write=write([made]),
        scans=(Truth(pixels=pixels, affine=ENHANCED_AFFINE),),
        oracle=oracle,
    )


def labelled_frames(name: str, label: Callable[[int], dict[str, Any]]) -> Case:
    """Return an enhanced object of two volumes, place by place, whose labels tell them apart."""
    frames = [at(k, **label(t)) for k in range(3) for t in (1, 0)]
    slices = np.stack([volume(3)[k] + 100 * t for k in range(3) for t in (1, 0)])
    truth = Truth(
        pixels=np.concatenate([volume(3), volume(3) + 100]),
        affine=ENHANCED_AFFINE,
        flags=("4d",),
    )
    made = enhanced(slices, frames, EnhancedMRImageStorage, "MR")
    return Case(name=name, write=write([made]), scans=(truth,))


def two_stacks() -> Dataset:
    frames = [at(k) for k in range(2)]
    frames += [at(k, PlaneOrientation={"ImageOrientationPatient": list(AXIAL)}) for k in range(2)]
    return enhanced(volume(4), frames, EnhancedMRImageStorage, "MR")


def concatenated() -> list[Dataset]:
    parts = []
    for n, ks in enumerate(([0, 1, 2], [3, 4])):
        part = enhanced(volume()[ks], [at(k) for k in ks], EnhancedCTImageStorage, "CT")
        part.ConcatenationUID, part.InConcatenationNumber = ROOT + "8", n + 1
        parts += renamed([part], n + 1)
    return parts


# Damage and company


def damaged(index: int, cut: int) -> Callable[[Path], None]:
    def into(folder: Path) -> None:
        for n, instance in enumerate(make_series(volume())):
            content = files.encode(instance)
            put(folder, f"{n}.dcm", content[:-cut] if n == index else content)

    return into


def scout() -> Dataset:
    return make_instance(
        volume(1, 20, 4)[0],
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        SOPInstanceUID=ROOT + "3.99",
        ImageOrientationPatient=list(SAGITTAL),
        PixelSpacing=[1.0, 1.0],
    )


def localizers() -> list[Dataset]:
    made = []
    for n, orientation in enumerate((AXIAL, CORONAL, SAGITTAL)):
        made += make_series(volume(2) + 100 * n, orientation=orientation)
    return renamed(made, 1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])


def summary_page() -> Dataset:
    return make_instance(
        colours(),
        SOPClassUID=SecondaryCaptureImageStorage,
        SOPInstanceUID=ROOT + "3.99",
        ImageType=["DERIVED", "SECONDARY"],
        BurnedInAnnotation="YES",
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
    )


def report() -> Dataset:
    made = make_instance(
        volume()[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", SOPInstanceUID=ROOT + "3.99"
    )
    for keyword in ("Rows", "Columns", "BitsAllocated", "PixelData"):
        delattr(made, keyword)
    return made


def unnumbered(index: int) -> list[Dataset]:
    return changed(make_series(volume()), index, ImagePositionPatient=None)


def twins(pixels: np.ndarray, uid: str | None) -> list[Dataset]:
    made = make_series(volume())
    twin = make_series(pixels)[2]
    if uid is not None:
        twin.SOPInstanceUID, twin.InstanceNumber = uid, 99
    return [*made, twin]


def write_with_junk(folder: Path) -> None:
    directory = make_instance(volume()[0], SOPClassUID=MediaStorageDirectoryStorage)
    for n, instance in enumerate(make_series(volume())):
        put(folder, f"S1/IM{n:04}", instance)
    put(folder, "DICOMDIR", directory)
    put(folder, "S1/DIRFILE", directory)
    put(folder, "S1/Thumbs.db", b"\xd0\xcf\x11\xe0")
    put(folder, "readme.txt", b"hello")
    put(folder, "S1/empty", b"")


def write_without_meta(folder: Path) -> None:
    for n, instance in enumerate(make_series(volume())):
        content = files.encode(instance)
        put(folder, f"{n}", content[content.index(b"\x08\x00\x08\x00CS") :])


def packaged_mosaic(name: str) -> Dataset:
    return pydicom.dcmread(io.BytesIO(gzip.decompress((NICOM / f"{name}.dcm.gz").read_bytes())))


def write_mosaics(folder: Path, *, anonymous: bool = False) -> None:
    for n, name in enumerate(("siemens_dwi_0", "siemens_dwi_1000")):
        dataset = packaged_mosaic(name)
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = ROOT + "2", f"{ROOT}3.{n}"
        dataset.InstanceNumber = n + 1
        if anonymous:
            dataset.remove_private_tags()
        put(folder, f"{n}.dcm", dataset)


def mosaic_tiles() -> np.ndarray:
    """Return the slices of both packaged mosaics, cut out one by one."""
    tiles = []
    for name in ("siemens_dwi_0", "siemens_dwi_1000"):
        picture = packaged_mosaic(name).pixel_array
        for n in range(48):
            top, left = n // 7 * 128, n % 7 * 128
            tiles.append(picture[top : top + 128, left : left + 128])
    return np.stack(tiles)


# Colours


def colours() -> np.ndarray:
    return np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def palette(bits: int, stored_bits: int) -> Dataset:
    """Return a picture whose 48 values are indices of the colours above."""
    indices = np.arange(48, dtype=np.uint8).reshape(6, 8)
    made = make_instance(indices, PhotometricInterpretation="PALETTE COLOR", Modality="OT")
    table = colours().reshape(-1, 3).astype(f"<u{stored_bits // 8}") << (8 if bits == 16 else 0)
    for n, colour in enumerate(("Red", "Green", "Blue")):
        descriptor, data = f"{colour}PaletteColorLookupTable{{}}".format, table[:, n].tobytes()
        setattr(made, descriptor("Descriptor"), [48, 0, bits])
        made[descriptor("Descriptor")].VR = "US"
        setattr(made, descriptor("Data"), data)
    return made


def one(name: str, made: Dataset, pixels: np.ndarray, **truth: Any) -> Case:
    where = {"affine": affine_of(spacing=(0.5, 0.5), origin=(0, 0, 0))}
    return Case(
        name=name, write=write([made]), scans=(Truth(pixels=pixels[None], **where | truth),)
    )


def pet() -> list[Dataset]:
    made = make_series(volume(), Modality="PT", SOPClassUID=PositronEmissionTomographyImageStorage)
    for k, instance in enumerate(made):
        instance.RescaleSlope = str(0.5 * (k + 1))
    return made


def film() -> Dataset:
    frames = np.arange(3 * 6 * 8, dtype=np.uint8).reshape(3, 6, 8)
    made = make_instance(frames[0], SOPClassUID=UltrasoundMultiFrameImageStorage, Modality="US")
    made.NumberOfFrames, made.PixelData = 3, frames.tobytes()
    return made


def padded() -> list[Dataset]:
    pixels = volume() + 1000
    pixels[:, 0] = -1500
    return make_series(pixels, Modality="MR", SOPClassUID=MRImageStorage, PixelPaddingValue=-1500)


def lut() -> Dataset:
    table = Dataset()
    table.LUTDescriptor, table.LUTData, table.ModalityLUTType = [4, 0, 16], [5, 50, 500, 5000], "US"
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    return make_instance(
        np.arange(48, dtype=np.uint16).reshape(6, 8) % 4,
        RescaleSlope=None,
        RescaleIntercept=None,
        ModalityLUTSequence=[table],
    )


def copy_series(files: Iterable[Path], folder: Path) -> None:
    """Put the files of one scan where an oracle finds nothing else."""
    folder.mkdir(parents=True)
    for n, path in enumerate(files):
        shutil.copyfile(path, folder / f"{n:04}.dcm")
