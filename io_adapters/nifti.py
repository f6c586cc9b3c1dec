"""NIfTI and FreeSurfer's MGH: a .nii, .nii.gz, .mgh or .mgz file to a Scan, a map to .nii.gz."""

from __future__ import annotations

import dataclasses
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib

from io_adapters import bids, planes, sniff, storage, windows
from io_adapters.parsers import guarded
from io_adapters.scan import (
    Geometry,
    Kind,
    Plane,
    Scan,
    ScanRef,
    UnreadableError,
    UnsupportedError,
)

_GIB = 2**30
_MAX_BYTES = 8 * _GIB
_MAX_RATIO = 200
"""Images compress two to ten times; a bomb a thousand times."""
_HARMLESS_BYTES = _GIB // 4
"""Below this a ratio means nothing: an empty mask compresses like a bomb."""
_MAX_DIM_NIFTI1 = 32767
_OTHER_UNITS = {1: "unit_metre", 3: "unit_micron"}
"""Flags for NIfTI's codes of spatial units; anything else is millimetres."""
_MGH_HAS_GEOMETRY = slice(28, 30)
"""Bytes of an MGH header that are 0 where it holds no orientation."""
_SAME_PLACE = 0.1
"""Voxels that two affines may put a corner of the volume apart and still agree."""


def read_nifti(ref: ScanRef, plane: Plane) -> Scan:
    """Read a NIfTI or MGH file into slices (S, H, W) of the plane; of a 4-D file, every volume.

    The affine is the sform where its code says that there is one, else the qform, else made of
    the voxel sizes. Beside the file's content, memory holds the slices and one volume.

    Flags: "4d"; "no_geometry", the affine is made of voxel sizes alone; "sform_qform_differ",
    programs that prefer the qform show the volume elsewhere; "unit_metre" and "unit_micron", the
    affine is not in millimetres; "nonfinite_N", N values are NaN or infinite; "ct_window".

    Args:
        ref: Where the file is.
        plane: Which planes become slices.

    Raises:
        UnreadableError: the file is cut short, broken, or no NIfTI or MGH file.
        UnsupportedError: it has two, five or more dimensions, colours or complex values, its
            voxels are in a file of their own, or it is larger than memory allows.
    """
    _check_size(ref.files[0].size if ref.files else 0)
    content = storage.read_single(ref)
    with guarded("the NIfTI file"):
        sniff.check_kind(Kind.NIFTI, ref.uri, content)
        image = _open(content)
        affine = np.asarray(image.affine, dtype=np.float64)
        flags = _geometry_flags(image)
        i, j, k, *volumes = (int(length) for length in image.shape)
        axes, flips = planes.cut(affine, (i, j, k), plane)
        geometry = Geometry(
            affine=affine,
            shape=(i, j, k),
            axes=axes,
            flips=flips,
            volumes=volumes[0] if volumes else None,
        )
        pixels = _slices(image.dataobj, geometry)
    window, value_flags = _window(pixels)
    several = ["4d"] if geometry.volumes is not None and geometry.volumes > 1 else []
    name = bids.parse(ref.uri)
    return Scan(
        pixels=pixels,
        window=window,
        geometry=geometry,
        modality=name.suffix if name else None,
        flags=(*value_flags, *several, *flags),
        hounsfield="ct_window" in value_flags,
    )


def encode_nifti(array: np.ndarray, affine: np.ndarray) -> bytes:
    """Return the bytes of a .nii.gz file, in millimetres, the same bytes on every run.

    The header is made from nothing, because a copied one carries names and comments along. The
    affine goes into the sform, and into the qform as well unless it has shears, which a qform
    cannot hold.

    Args:
        array: (I, J, K) or (I, J, K, T) on the native grid; uint8 stays what it is, all other
            numbers become float32.
        affine: (4, 4) native voxel index to RAS millimetres.
    """
    kind = nib.Nifti1Image if max(array.shape) <= _MAX_DIM_NIFTI1 else nib.Nifti2Image
    image = kind(array if array.dtype == np.uint8 else array.astype(np.float32, copy=False), None)
    header = image.header
    header.set_xyzt_units(xyz="mm", t="sec" if array.ndim == 4 else None)
    header.set_zooms([*np.linalg.norm(affine[:3, :3], axis=0), *[1.0] * (array.ndim - 3)])
    header.set_sform(affine, code="aligned")
    if not _has_shear(affine):
        header.set_qform(affine, code="aligned")
    return bytes(igzip.compress(image.to_bytes(), compresslevel=2, mtime=0))


def decode_nifti(content: bytes) -> Any:
    """Return what `encode_nifti` wrote as nibabel's image: of ours, so without any check.

    Its voxels are not loaded yet: `image.dataobj[..., n]` is the n-th volume of four axes.
    """
    content = igzip.decompress(content)
    return _image_class(content).from_bytes(content)


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


def _open(content: bytes) -> Any:
    """Return nibabel's image, its voxels not yet loaded, after checks that cost nothing."""
    content = inflate(content)
    image = _image_class(content).from_bytes(content)
    dtype, shape = image.get_data_dtype(), image.shape
    if dtype.kind not in "iuf":
        raise UnsupportedError("the file holds colours or complex numbers, not one value a voxel")
    if len(shape) not in {3, 4}:
        raise UnsupportedError(f"the file has {len(shape)} dimensions; 3 and 4 are handled")
    if min(shape) < 1:
        raise UnreadableError("the header announces an image without voxels")
    voxels = int(np.prod(shape, dtype=object))
    announced = int(image.dataobj.offset) + dtype.itemsize * voxels
    if announced > len(content):
        raise UnreadableError(
            f"the file was cut short: its header announces {announced} bytes, it has {len(content)}"
        )
    _check_size(_type_of_values(image.dataobj).itemsize * voxels)
    return image


def _image_class(content: bytes) -> Any:
    """Return the nibabel class that parses some bytes."""
    sizes = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    if 1 in sizes:
        return nib.MGHImage
    if not sizes & {348, 540}:
        raise UnreadableError("the file is not NIfTI")
    if content[344:348] == b"ni1\0" or content[4:8] == b"ni2\0":
        raise UnsupportedError(
            "the file is the header of a .hdr/.img pair, without its voxels: convert it to .nii"
        )
    return nib.Nifti1Image if 348 in sizes else nib.Nifti2Image


def _geometry_flags(image: Any) -> list[str]:
    """Return what a reader should know of where the voxels are said to be."""
    if isinstance(image, nib.MGHImage):
        content = image.file_map["image"].fileobj.getbuffer()  # nibabel's header sets the flag
        return ["no_geometry"] if content[_MGH_HAS_GEOMETRY] == bytes(2) else []
    header = image.header
    codes = int(header["sform_code"]), int(header["qform_code"])
    flags = [] if max(codes) > 0 else ["no_geometry"]
    if min(codes) > 0 and not _same_place(header.get_sform(), header.get_qform(), image.shape[:3]):
        flags.append("sform_qform_differ")
    unit = _OTHER_UNITS.get(int(header["xyzt_units"]) & 7)
    return [*flags, unit] if unit else flags


def _same_place(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Tell whether two affines put the corners of a volume in the same places."""
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * [*shape, 1]
    apart = np.linalg.norm((corners @ (affine - other).T)[:, :3], axis=1)
    return bool(apart.max() <= _SAME_PLACE * np.linalg.norm(affine[:3, :3], axis=0).min())


def _slices(voxels: Any, geometry: Geometry) -> np.ndarray:
    """Return the scaled values as slices (S, H, W), volume after volume.

    Args:
        voxels: nibabel's array proxy, (I, J, K) or (I, J, K, T).
        geometry: Of all volumes.
    """
    dtype = _type_of_values(voxels)
    if geometry.volumes is None:
        return np.ascontiguousarray(geometry.to_slices(_as_type(voxels[...], dtype)))
    one = dataclasses.replace(geometry, volumes=None)
    depth, height, width = (geometry.shape[axis] for axis in geometry.axes)
    pixels = np.empty((geometry.volumes, depth, height, width), dtype)
    for volume, target in enumerate(pixels):
        target[...] = one.to_slices(_as_type(voxels[..., volume], dtype))
    return pixels.reshape(-1, height, width)


def _type_of_values(voxels: Any) -> np.dtype[Any]:
    """Return the type of scaled values: whole numbers as they are stored, float32 for others."""
    scaled = (voxels.slope, voxels.inter) != (1, 0)
    is_float = scaled or voxels.dtype.kind == "f"
    return np.dtype(np.float32) if is_float else voxels.dtype.newbyteorder("=")


def _as_type(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and counted as such
        return values.astype(dtype, copy=False)


def _check_size(size: int) -> None:
    """Refuse files, or voxels, of more bytes than a worker should hold."""
    if size > _MAX_BYTES:
        raise UnsupportedError(
            f"the volume takes {size / _GIB:.1f} GiB; at most {_MAX_BYTES // _GIB} are read: "
            "split the file"
        )


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
