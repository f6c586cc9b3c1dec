"""BIDS derivatives: the anomaly maps of a dataset as a dataset of its own.

    OUT/dataset_description.json  README.md
    OUT/sub-01/ses-a/anat/sub-01_ses-a_space-orig_desc-anomaly_probseg.nii.gz  …_probseg.json
                          sub-01_ses-a_space-orig_desc-anomaly_mask.nii.gz     …_mask.json

The probseg is the map between the values where heat begins and where it is full, as 0…1: a place
on a scale, which BIDS has no other name for, and no probability. The mask is where there is heat
at all. Both are on the grid of their source; of a 4-D source they hold the highest value over its
volumes, because BIDS reads a fourth axis of segmentations as classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from io_adapters import bids, storage
from io_adapters.naming import hashed_id
from io_adapters.nifti import decode_nifti, encode_nifti

_BIDS_VERSION = "1.10.0"
_SOURCE = "raw"
"""What the sidecars call the source dataset."""
_ORDER = ("sub", "ses", "task", "acq", "ce", "rec", "dir", "run", "echo", "part", "space", "chunk")
"""The order of entities in a name."""
_COMMON = frozenset({"sub", "ses", "acq", "rec", "run", "part", "chunk", "space"})
_ENTITIES = {
    "anat": _COMMON | {"task", "ce", "echo"},
    "func": _COMMON | {"task", "ce", "dir", "echo"},
    "dwi": _COMMON | {"dir"},
}
"""The entities that BIDS lets the segmentations of a datatype have, of those of its raw files."""
_PRINCIPAL = {"anat": "T1w", "func": "bold", "dwi": "dwi"}
_HARMLESS = re.compile("[0-9]{1,3}|mag|phase|real|imag|on|off|L|R")
"""Labels that lead nowhere, except as those of a subject or a session."""
_README = """# Anomaly maps

Made by zsad from another dataset. `probseg` is the anomaly map between the two values of the
sidecar's `HeatRange`, as 0 to 1, and is no probability; `mask` is where it is above 0. Of a source
with several volumes both hold the highest value.

RESEARCH – not for diagnosis.
"""


class ForeignDatasetError(Exception):
    """The folder for the derivatives holds a dataset that something else made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Derivatives:
    """How the derivatives of one dataset are written."""

    output: str
    """URI of the folder."""
    heat: tuple[float, float]
    """Map values that become 0 and 1."""
    keep_ids: bool
    """Whether labels that a site chose (subject, session, task, …) are kept, and the source named;
    otherwise they are replaced by keyed hashes."""

    def write_scan(self, uri: str, results: str, record: Mapping[str, Any]) -> bool:
        """Write probseg and mask of a scan, and what there is to say of them.

        Args:
            uri: The volume, one that has a `target`.
            results: URI of the folder with the committed scans.
            record: What was committed of it.

        Returns:
            Whether there was something to do: what is there and of the same map stays.
        """
        base = storage.join(self.output, str(target(uri, keep_ids=self.keep_ids)))
        about = self._describe(uri, record)
        scale = _json({"Description": "Place of the map in HeatRange, clipped to 0…1", **about})
        hot = "Where the map is above the lower end of HeatRange"
        commit = _json({"Description": hot, "Type": "ROI", **about})
        if _read(f"{base}_mask.json") == commit:
            return False
        image = decode_nifti(storage.read_bytes(storage.join(results, record["map"])))
        probseg = to_unit(image.dataobj, self.heat)
        mask = (probseg > 0).astype(np.uint8)
        storage.put_bytes(f"{base}_probseg.nii.gz", encode_nifti(probseg, image.affine))
        storage.put_bytes(f"{base}_probseg.json", scale)
        storage.put_bytes(f"{base}_mask.nii.gz", encode_nifti(mask, image.affine))
        storage.put_bytes(f"{base}_mask.json", commit)
        return True

    def write_dataset(self, source: str) -> None:
        """Write what the folder needs to be a dataset.

        Args:
            source: URI of the dataset that the scans are from.

        Raises:
            ForeignDatasetError: it is another dataset already.
        """
        self.check()
        software = {"Name": "zsad", "Version": version("zsad")}
        description: dict[str, Any] = {
            "Name": "Anomaly maps",
            "BIDSVersion": _BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [software],
        }
        if self.keep_ids:
            url = Path(source).as_uri() if storage.is_local(source) else source
            description |= {"SourceDatasets": [{"URL": url}], "DatasetLinks": {_SOURCE: url}}
        storage.put_bytes(storage.join(self.output, bids.DESCRIPTION), _json(description))
        storage.put_bytes(storage.join(self.output, "README.md"), _README.encode())

    def check(self) -> None:
        """Make sure that no other dataset is overwritten.

        Raises:
            ForeignDatasetError: the folder holds one.
        """
        content = _read(storage.join(self.output, bids.DESCRIPTION))
        if content is None:
            return
        try:
            ours = any(tool["Name"] == "zsad" for tool in json.loads(content)["GeneratedBy"])
        except (ValueError, TypeError, KeyError):
            ours = False
        if not ours:
            raise ForeignDatasetError("the folder holds another BIDS dataset: choose a new folder")

    def _describe(self, uri: str, record: Mapping[str, Any]) -> dict[str, Any]:
        name = bids.parse(uri)
        path = uri.removeprefix(name.root).lstrip("/") if name else ""
        sources = {"Sources": [f"bids:{_SOURCE}:{path}"]} if self.keep_ids else {}
        return {
            **sources,
            "SpatialReference": "orig",
            "HeatRange": list(self.heat),
            "ScanId": record["scan_id"],
            "ScanScore": record["score"],
            "Fingerprint": record["fingerprint"],
        }


def target(uri: str, *, keep_ids: bool) -> str | None:
    """Return the path that the derivatives of a volume share, without their suffixes.

    A source's suffix, and entities that BIDS does not give to segmentations, go into `desc`, so
    that no two volumes share a path: "desc-anomaly" of a T1w, bold or dwi, else "desc-anomalyT2w".

    Args:
        uri: The volume.
        keep_ids: Whether labels that a site chose are kept.

    Returns:
        For instance "sub-01/anat/sub-01_space-orig_desc-anomaly"; None where the path does not
        follow BIDS, or BIDS has no segmentations of the datatype.
    """
    name = bids.parse(uri)
    if name is None or name.datatype not in _ENTITIES:
        return None
    labels = dict(name.entities if keep_ids else _impersonal(name)) | {"space": "orig"}
    allowed = _ENTITIES[name.datatype]
    kept = [f"{key}-{labels[key]}" for key in _ORDER if key in allowed & labels.keys()]
    others = [key.capitalize() + labels[key] for key in labels if key not in allowed]
    suffix = "" if name.suffix == _PRINCIPAL[name.datatype] else name.suffix
    described = f"desc-anomaly{''.join(others)}{suffix}"
    folders = [part for part in kept if part.startswith(("sub-", "ses-"))]
    return "/".join([*folders, name.datatype, "_".join([*kept, described])])


def to_unit(voxels: Any, heat: tuple[float, float]) -> np.ndarray:
    """Return the highest of a map's volumes as places between two values, float32 0…1 (I, J, K).

    Args:
        voxels: (I, J, K) or (I, J, K, T) numbers, or nibabel's proxy of them; NaN becomes 0.
        heat: Map values that become 0 and 1.
    """
    low, high = heat
    highest = np.asarray(voxels[..., 0] if voxels.ndim == 4 else voxels[...], np.float32)
    for volume in range(1, voxels.shape[3] if voxels.ndim == 4 else 1):
        highest = np.fmax(highest, voxels[..., volume], dtype=np.float32)
    unit = np.nan_to_num(np.clip((highest - low) / (high - low), 0, 1))
    # As maps themselves are: noise in the low bits would not compress.
    rounded: np.ndarray = unit.astype(np.float16).astype(np.float32)
    return rounded


def _impersonal(name: bids.BidsName) -> Iterator[tuple[str, str]]:
    """Yield a volume's entities with labels that do not lead back to a person or a site."""
    for key, label in name.entities:
        if key not in {"sub", "ses"} and _HARMLESS.fullmatch(label):
            yield key, label
        else:
            hashed = hashed_id(key, f"{name.root}/{key}-{label}").removeprefix(f"{key}-")
            yield key, str(int(hashed, 16)) if label.isdecimal() else hashed  # numbers stay numbers


def _read(uri: str) -> bytes | None:
    try:
        return storage.read_bytes(uri)
    except FileNotFoundError:
        return None


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, indent=1, allow_nan=False, ensure_ascii=False).encode()
