"""The table of small archives and of what must become of each; `dicom_archives` makes them."""

from __future__ import annotations

import numpy as np
from dicom_archives import (
    ENHANCED_AFFINE,
    PACKAGED,
    STEP,
    Case,
    Truth,
    affine_of,
    backwards,
    changed,
    clocked,
    colours,
    concatenated,
    damaged,
    film,
    four_d,
    in_syntax,
    labelled_frames,
    localizers,
    lut,
    mosaic_tiles,
    one,
    packaged,
    padded,
    palette,
    per_frame_rescale,
    pet,
    put,
    regular,
    renamed,
    report,
    scout,
    summary_page,
    twins,
    two_stacks,
    unnumbered,
    volumes,
    with_private,
    write,
    write_mosaics,
    write_with_junk,
    write_without_meta,
)
from dicom_files import AXIAL, CORONAL, OBLIQUE, ROOT, SAGITTAL, make_instance, make_series, volume
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from io_adapters import windows

TILT = np.array([0.0, STEP * np.tan(np.radians(15)), STEP])
VOLUME = Truth(pixels=volume(), affine=affine_of())
INDICES = np.arange(48).reshape(6, 8)
UNCERTAIN = "burned_in_text_possible"
COLOURED = {"pixels": colours(), "affine": affine_of(spacing=(0.5, 0.5), origin=(0, 0, 0))}


def volume_and(*others: Truth) -> tuple[Truth, ...]:
    return (VOLUME, *others)


def flagged(*flags: str, without: tuple[int, ...] = ()) -> Truth:
    """Return the plain volume as a stack without geometry."""
    return Truth(pixels=np.delete(volume(), without, axis=0), flags=flags)


CASES = [
    regular("axial", AXIAL),
    regular("coronal", CORONAL),
    regular("sagittal", SAGITTAL),
    regular("oblique", OBLIQUE),
    regular("against the normal", SAGITTAL, step=-STEP),
    regular("frame of reference", OBLIQUE, FrameOfReferenceUID=ROOT + "4"),
    in_syntax("implicit", ImplicitVRLittleEndian),
    in_syntax("big endian", ExplicitVRBigEndian),
    in_syntax("deflated", DeflatedExplicitVRLittleEndian),
    in_syntax("RLE", RLELossless),
    packaged("MR_small", "MR_small", oracle="dcm2niix"),
    packaged("MR_small_RLE", "MR_small", oracle="dcm2niix"),
    packaged("MR_small_jp2klossless", "MR_small", oracle="dcm2niix"),
    packaged("MR_small_jpeg_ls_lossless", "MR_small", oracle="dcm2niix"),
    packaged("MR_small_bigendian", "MR_small", oracle="dcm2niix"),
    packaged("CT_small", "CT_small", oracle="dcm2niix"),
    # Irregular volumes
    Case(
        name="tilted gantry",
        write=write(make_series(volume(), step=TILT)),
        scans=(Truth(pixels=volume(), affine=affine_of(step=TILT), flags=("tilt",)),),
    ),
    Case(
        name="missing slice",
        write=write(make_series(volume())[:2], make_series(volume())[3:]),
        scans=(flagged("missing_slices_1", without=(2,)),),
    ),
    Case(
        name="two spacings",
        write=write(changed(make_series(volume()), 4, ImagePositionPatient=[-10, 20, 39.2])),
        scans=(flagged("uneven_spacing_2.00..3.20mm"),),
    ),
    Case(
        name="slice moved sideways",
        write=write(changed(make_series(volume()), 2, ImagePositionPatient=[-9, 20, 34])),
        scans=(flagged("off_grid_1.00mm"),),
    ),
    Case(
        name="slice turned a little",
        write=write(
            changed(
                make_series(volume()),
                3,
                ImageOrientationPatient=[0.99998, 0.006, 0, -0.006, 0.99998, 0],
            )
        ),
        scans=(Truth(pixels=volume()[[0, 1, 2, 4, 3]], flags=("orientations_2",)),),
    ),
    Case(
        name="copy of a file",
        write=write(twins(volume(), None)),
        scans=(Truth(pixels=volume(), affine=affine_of(), flags=("copies_dropped_1",)),),
    ),
    Case(
        name="two files of one UID",
        write=write(twins(volume() + 1, None)),
        failures=("two different files have the same SOP instance UID",),
    ),
    Case(
        name="slice sent twice under two UIDs",
        write=write(twins(volume() + 1, ROOT + "3.99")),
        scans=(Truth(pixels=volume(), affine=affine_of(), flags=("duplicates_1",)),),
    ),
    Case(
        name="no positions",
        write=write(make_series(volume(), ImagePositionPatient=None)[::-1]),
        scans=(flagged("no_geometry"),),
    ),
    Case(
        name="no position in one file",
        write=write(unnumbered(1)),
        failures=("1 frames do not say where they lie",),
    ),
    # Series of several parts
    Case(
        name="scout in a CT",
        write=write(make_series(volume()), [scout()]),
        scans=volume_and(
            Truth(
                pixels=volume(1, 20, 4),
                affine=affine_of(SAGITTAL, rows=20, spacing=(1, 1), origin=(0, 0, 0)),
                flags=("localizer",),
            )
        ),
    ),
    Case(
        name="localizers in three planes",
        write=write(localizers()),
        scans=tuple(
            Truth(pixels=volume(2) + 100 * n, affine=affine_of(orientation), flags=("localizer",))
            for n, orientation in enumerate((AXIAL, CORONAL, SAGITTAL))
        ),
    ),
    Case(
        name="three planes not called localizers",
        write=write(renamed(localizers(), 1, ImageType=["ORIGINAL", "PRIMARY", "M"])),
        scans=tuple(
            Truth(pixels=volume(2) + 100 * n, affine=affine_of(orientation))
            for n, orientation in enumerate((AXIAL, CORONAL, SAGITTAL))
        ),
    ),
    Case(
        name="other matrix size",
        write=write(make_series(volume()), renamed(make_series(volume(2, 4, 4)), 20)),
        scans=volume_and(Truth(pixels=volume(2, 4, 4), affine=affine_of(rows=4))),
    ),
    Case(
        name="other pixel spacing",
        write=write(make_series(volume()), renamed(make_series(volume(2), spacing=(1, 1)), 20)),
        scans=volume_and(Truth(pixels=volume(2), affine=affine_of(spacing=(1, 1)))),
    ),
    Case(
        name="summary page in a CT",
        write=write(make_series(volume()), [summary_page()]),
        scans=volume_and(
            Truth(pixels=colours()[None], flags=("secondary_capture", "burned_in_text"))
        ),
    ),
    Case(
        name="derived images in a series",
        write=write(
            make_series(volume()),
            renamed(make_series(volume(3) + 9), 20, ImageType=["DERIVED", "SECONDARY", "MIP"]),
        ),
        scans=volume_and(Truth(pixels=volume(3) + 9, affine=affine_of(), flags=("derived",))),
    ),
    Case(
        name="report in a series",
        write=write(make_series(volume()), [report()]),
        scans=volume_and(),
        failures=("Basic Text SR Storage has no pixels",),
    ),
    Case(
        name="segmentation in a series",
        write=write(
            make_series(volume()),
            [make_instance(volume()[0], SOPClassUID=SegmentationStorage)],
        ),
        scans=volume_and(),
        failures=("Segmentation Storage is not a picture",),
    ),
    # Several volumes
    four_d("acquisitions", backwards(volumes(3, AcquisitionNumber=(1, 2, 3)))),
    four_d("temporal positions", backwards(volumes(3, TemporalPositionIdentifier=(1, 2, 3)))),
    four_d("echoes", backwards(volumes(3, EchoTime=("2.3", "9.1", "10.4")))),
    four_d("b-values", backwards(volumes(3, DiffusionBValue=(0.0, 500.0, 1000.0)))),
    four_d(
        "b-values of GE",
        backwards(
            with_private(volumes(3), 0x43, "GEMS_PARM_01", 0x39, ["0", "1000000500", "1000001000"])
        ),
    ),
    four_d(
        "b-values of Siemens",
        backwards(with_private(volumes(3), 0x19, "SIEMENS MR HEADER", 0x0C, ["0", "50", "800"])),
    ),
    four_d("flip angles", backwards(volumes(3, FlipAngle=("3", "9", "20")))),
    four_d("trigger times that differ by slice", clocked()),
    four_d(
        "magnitude and phase",
        backwards(
            volumes(2, ImageType=[["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]])
        ),
        count=2,
    ),
    four_d(
        "echoes at two times",
        backwards(volumes(4, AcquisitionNumber=(1, 1, 2, 2), EchoTime=("2", "5", "2", "5"))),
        count=4,
    ),
    four_d("numbers alone", renamed(volumes(3), 1), oracle="dcm2niix"),
    Case(
        name="aborted last volume",
        write=write(renamed(volumes(3, AcquisitionNumber=(1, 2, 3)), 1)[:-1]),
        scans=(
            Truth(
                pixels=np.concatenate([volume(3), volume(3) + 100]),
                affine=affine_of(),
                flags=("4d", "slices_of_incomplete_volumes_dropped_2"),
            ),
        ),
    ),
    Case(
        name="aborted volume that nothing tells from others",
        write=write(renamed(volumes(3), 1)[:-1]),
        failures=("8 frames lie at 3 places",),
    ),
    Case(
        name="Siemens mosaics",
        write=write_mosaics,
        scans=(
            Truth(
                pixels=mosaic_tiles(),
                affine=np.array(  # what dcm2niix 1.0.20260724 writes for siemens_dwi_0
                    [
                        [-1.796875, 0, 0, 115],
                        [0, 1.79685044, -0.0157080051, -93.1714783],
                        [0, 0.00940844044, 2.99995899, -79.9053497],
                        [0, 0, 0, 1],
                    ]
                ),
                flags=("4d", "mosaic_48"),
            ),
        ),
        oracle="dcm2niix",
    ),
    Case(
        name="mosaics without private attributes",
        write=lambda folder: write_mosaics(folder, anonymous=True),
        failures=("the mosaic does not tell how many slices",),
    ),
    # Several frames in one file
    per_frame_rescale("enhanced MR", EnhancedMRImageStorage, "MR", "dcm2niix"),
    per_frame_rescale("enhanced CT", EnhancedCTImageStorage, "CT", "dcm2niix"),
    per_frame_rescale("enhanced PET", EnhancedPETImageStorage, "PT", "dcm2niix"),
    labelled_frames("enhanced times", lambda t: {"FrameContent": {"TemporalPositionIndex": t + 1}}),
    labelled_frames("enhanced echoes", lambda t: {"MREcho": {"EffectiveEchoTime": 5.0 + t}}),
    labelled_frames("enhanced b-values", lambda t: {"MRDiffusion": {"DiffusionBValue": 500.0 * t}}),
    labelled_frames(
        "enhanced frame types",
        lambda t: {"MRImageFrameType": {"FrameType": ["ORIGINAL", "PRIMARY", "MP"[t]]}},
    ),
    Case(
        name="two stacks in one file",
        write=write([two_stacks()]),
        scans=(Truth(pixels=volume(4), flags=("orientations_2",)),),
    ),
    Case(
        name="enhanced object in two files",
        write=write(concatenated()),
        scans=(Truth(pixels=volume(), affine=ENHANCED_AFFINE),),
    ),
    Case(
        name="ultrasound film",
        write=write([film()]),
        scans=(Truth(pixels=np.arange(144).reshape(3, 6, 8), flags=("no_geometry", UNCERTAIN)),),
    ),
    # Values and colours
    Case(
        name="PET with a slope for every slice",
        write=write(pet()),
        scans=(Truth(pixels=volume() * 0.5 * np.arange(1, 6)[:, None, None], affine=affine_of()),),
    ),
    Case(
        name="padding",
        write=write(padded()),
        scans=(
            Truth(
                pixels=np.concatenate([np.full((5, 1, 8), -1500), volume()[:, 1:] + 1000], axis=1),
                affine=affine_of(),
                window=windows.robust_window(volume()[:, 1:] + 1000),
            ),
        ),
    ),
    one(
        "MONOCHROME1",
        make_instance(volume()[0], PhotometricInterpretation="MONOCHROME1"),
        volume()[0],
        flags=("mono1",),
        invert=True,
    ),
    one("modality LUT", lut(), np.array([5, 50, 500, 5000])[INDICES % 4]),
    one("RGB", make_instance(colours(), Modality="OT"), colours()),
    one(
        "RGB by planes",
        make_instance(
            colours(),
            Modality="OT",
            PlanarConfiguration=1,
            PixelData=colours().transpose(2, 0, 1).tobytes(),
        ),
        colours(),
    ),
    one(
        "RGB of 16 bits",
        make_instance(colours().astype(np.uint16) << 8, Modality="OT"),
        colours(),
    ),
    one(
        "YBR",
        make_instance(
            np.full((6, 8, 3), (76, 85, 255), np.uint8),
            Modality="OT",
            PhotometricInterpretation="YBR_FULL",
        ),
        np.full((6, 8, 3), (254, 0, 0)),  # Y = 76, the rounded luminance of red 254
    ),
    one("palette", palette(8, 8), colours()),
    one("palette of 16 bits", palette(16, 16), colours()),
    one("palette of 8 bits in 16", palette(8, 16), colours()),
    one(
        "secondary capture",
        make_instance(colours(), SOPClassUID=SecondaryCaptureImageStorage, Modality="OT"),
        colours(),
        flags=("secondary_capture", UNCERTAIN),
    ),
    one(
        "radiograph that says it has no text",
        make_instance(
            volume()[0] + 1000,
            Modality="CR",
            SOPClassUID="1.2.840.10008.5.1.4.1.1.1",
            BurnedInAnnotation="NO",
        ),
        volume()[0] + 1000,
    ),
    # Damage
    Case(
        name="truncated slice in the middle",
        write=damaged(2, 30),
        scans=(flagged("slice_lost_1", "missing_slices_1", without=(2,)),),
    ),
    Case(
        name="truncated slice at the end",
        write=damaged(4, 30),
        scans=(Truth(pixels=volume(4), affine=affine_of(), flags=("slice_lost_1",)),),
    ),
    Case(
        name="slice cut in its header",
        write=damaged(2, 300),
        scans=(flagged("missing_slices_1", without=(2,)),),
        failures=("DICOM|pixels",),
    ),
    Case(
        name="truncated alone",
        write=lambda folder: put(folder, "a", (PACKAGED / "MR_truncated.dcm").read_bytes()),
        failures=("cut short",),
    ),
    Case(name="no meta header", write=write_without_meta, scans=(VOLUME,)),
    Case(
        name="DICOMDIR and junk",
        write=write_with_junk,
        scans=(VOLUME,),
        failures=("the content is empty",),
        ignored={"DICOMDIR": 2, ".db": 1, ".txt": 1},
    ),
]
