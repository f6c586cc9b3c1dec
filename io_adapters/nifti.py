"""NIfTI: a .nii or .nii.gz file to a Scan, and a map back to .nii.gz."""

from __future__ import annotations

import re
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib

from io_adapters import planes, storage, windows
from io_adapters.parsers import guarded
from io_adapters.scan import Geometry, Plane, Scan, ScanRef, UnreadableError, UnsupportedError

_GIB = 2**30
_MAX_BYTES = 8 * _GIB
_MAX_RATIO = 200
"""Images compress two to ten times; a bomb a thousand times."""
_HARMLESS_BYTES = _GIB // 4
"""Below this a ratio means nothing: an empty mask compresses like a bomb."""
_MAX_DIM_NIFTI1 = 32767
_BIDS_SUFFIX = re.compile(
    r"/sub-[^/]*_(T1w|T2w|FLAIR|PDw|T2star|T2starw|UNIT1|inplaneT1|inplaneT2|bold|sbref|dwi|asl"
    r"|pet|angio|epi|m0scan|MP2RAGE|MEGRE|defacemask)\.nii(\.gz)?$"
)


def read_nifti(ref: ScanRef, plane: Plane) -> Scan:
    """Read a NIfTI file into slices (S, H, W) of the plane; of a 4-D file, every volume.

    Args:
        ref: Where the file is.
        plane: Which planes become slices.

    Raises:
        UnreadableError: the file is cut short or broken.
        UnsupportedError: it has two, five or more dimensions, colours or complex values, or is
            larger than memory allows.
    """
    content = inflate(storage.read_bytes(ref.uri))
    with guarded("the NIfTI file"):
        image = _parse(content)
        native = _native_values(image)
        affine = np.asarray(image.affine, dtype=np.float64)
        has_geometry = int(image.header["sform_code"]) > 0 or int(image.header["qform_code"]) > 0
    volumes = native.shape[3] if native.ndim == 4 else None
    axes, flips = planes.cut(affine, native.shape[:3], plane)
    geometry = Geometry(
        affine=affine, shape=native.shape[:3], axes=axes, flips=flips, volumes=volumes
    )
    pixels = np.ascontiguousarray(geometry.to_slices(native))
    window, flags = _window(pixels)
    if volumes is not None and volumes > 1:
        flags.append("4d")
    if not has_geometry:
        flags.append("no_geometry")
    suffix = _BIDS_SUFFIX.search(ref.uri)
    return Scan(
        pixels=pixels,
        window=window,
        geometry=geometry,
        modality=suffix.group(1) if suffix else None,
        flags=tuple(flags),
    )


def encode_nifti(array: np.ndarray, affine: np.ndarray) -> bytes:
    """Return the bytes of a .nii.gz file: float32, millimetres, the same bytes on every run.

    The header is made from nothing, because a copied one carries names and comments along. The
    affine goes into the sform, and into the qform as well unless it has shears, which a qform
    cannot hold.

    Args:
        array: (I, J, K) or (I, J, K, T) numbers on the native grid.
        affine: (4, 4) native voxel index to RAS millimetres.
    """
    kind = nib.Nifti1Image if max(array.shape) <= _MAX_DIM_NIFTI1 else nib.Nifti2Image
    image = kind(np.asarray(array, dtype=np.float32), None)
    header = image.header
    header.set_xyzt_units(xyz="mm", t="sec" if array.ndim == 4 else None)
    header.set_zooms([*np.linalg.norm(affine[:3, :3], axis=0), *[1.0] * (array.ndim - 3)])
    header.set_sform(affine, code="aligned")
    if not _has_shear(affine):
        header.set_qform(affine, code="aligned")
    return bytes(igzip.compress(image.to_bytes(), compresslevel=2, mtime=0))


def inflate(content: bytes) -> bytes:
    """Return what a gzip file holds, or the content itself where it is not gzip.

    Raises:
        UnreadableError: the compressed data ends early or is corrupt.
        UnsupportedError: it would grow beyond what an image can.
    """
    if content[:2] != b"\x1f\x8b":
        return content
    limit = min(_MAX_BYTES, max(_HARMLESS_BYTES, _MAX_RATIO * len(content)))
    parts: list[bytes] = []
    with guarded("the compressed file"):
        while content[:2] == b"\x1f\x8b":  # a gzip file may be several, one after the other
            member = isal_zlib.decompressobj(31)
            parts.append(member.decompress(content, limit + 1))
            limit -= len(parts[-1])
            if limit < 0:
                raise UnsupportedError("the file inflates to far more than an image would")
            if not member.eof:
                raise UnreadableError("the compressed data ends early: the file was cut short")
            content = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _parse(content: bytes) -> Any:
    """Return nibabel's image, after checks that cost nothing."""
    sizes = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    if not sizes & {348, 540}:
        raise UnreadableError("the file is not NIfTI")
    image = (nib.Nifti1Image if 348 in sizes else nib.Nifti2Image).from_bytes(content)
    header = image.header
    dtype, shape = header.get_data_dtype(), header.get_data_shape()
    if dtype.kind not in "iuf":
        raise UnsupportedError("the file holds colours or complex numbers, not one value a voxel")
    if len(shape) not in {3, 4}:
        raise UnsupportedError(f"the file has {len(shape)} dimensions; 3 and 4 are handled")
    if min(shape) < 1:
        raise UnreadableError("the header announces an image without voxels")
    announced = int(image.dataobj.offset) + dtype.itemsize * int(np.prod(shape, dtype=object))
    if announced > len(content):
        raise UnreadableError(
            f"the file was cut short: its header announces {announced} bytes, it has {len(content)}"
        )
    return image


def _native_values(image: Any) -> np.ndarray:
    """Return the scaled voxels in native byte order, floats as float32."""
    values: np.ndarray = np.asarray(image.dataobj)
    dtype = np.float32 if values.dtype.kind == "f" else values.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype=dtype)


def _window(pixels: np.ndarray) -> tuple[tuple[float, float], list[str]]:
    flags = []
    if pixels.dtype.kind == "f":
        lost = pixels.size - int(np.count_nonzero(np.isfinite(pixels)))
        if lost:
            flags.append(f"nonfinite_{lost}")
    if windows.looks_like_hounsfield(pixels):
        return windows.CT_SOFT_TISSUE, ["ct_window", *flags]
    return windows.robust_window(pixels), flags


def _has_shear(affine: np.ndarray) -> bool:
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return not np.allclose(columns.T @ columns, np.eye(3), atol=1e-4)
