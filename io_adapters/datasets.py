"""Labelled sets: the lists and folders that benchmarks come in → images with labels and masks.

What a set is, its URI decides:

    SET.jsonl   the lists of AA-CLIP's code: image_path, label, class_name, mask_path, split
    SET.csv     VisA's split files: object, split, label (normal, anomaly), image, mask
    SET.json    the lists of AdaCLIP's code: split → class → entries of img_path, mask_path,
                cls_name, anomaly
    FOLDER      MVTec AD, and MPDD and BTAD after it: CLASS/{train,test}/{good,ok,DEFECT}/NAME.png
                and CLASS/ground_truth/DEFECT/{NAME_mask,NAME}.png
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from io_adapters import storage
from io_adapters.display import to_display
from io_adapters.prefetch import map_ordered
from io_adapters.readers import read_scan
from io_adapters.scan import Kind, Scan, ScanError, ScanRef, UnsupportedError
from io_adapters.sniff import IMAGE_SUFFIXES

_NORMAL_FOLDERS = frozenset({"good", "ok"})
_SPLITS = frozenset({"train", "test"})
_VISA_COLUMNS = ("object", "split", "label", "image", "mask")
_VISA_LABELS = {"normal": 0, "anomaly": 1}


class DatasetError(Exception):
    """A labelled set that cannot be used as it is; the message names the file and the place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledImage:
    """One image of a labelled set: where it is and what is known of it."""

    image: str
    """Its URI."""
    mask: str | None
    """URI of the picture in which every value but 0 is anomalous; None for a normal image, and
    where only the image as a whole was labelled."""
    anomalous: bool
    class_name: str
    """What the image shows, as prompts say it ("metal nut")."""
    domain: str
    """"industrial" or "medical"."""
    split: str | None
    """"train" or "test", where the set says it."""
    category: str | None = None
    """The set's own name of the class ("metal_nut"), where prompts say it in other words."""

    @property
    def has_pixel_labels(self) -> bool:
        """Whether it is known which of its pixels are anomalous."""
        return self.mask is not None or not self.anomalous


@dataclass(frozen=True, slots=True)
class _Row:
    """What a list or a folder says of an image, and where it says so."""

    place: str
    image: str
    mask: str | None
    anomalous: bool
    category: str
    split: str | None


def read_labelled(
    uri: str,
    *,
    domain: str,
    root: str | None = None,
    descriptions: Mapping[str, str] | None = None,
) -> list[LabelledImage]:
    """List a labelled set; every file that it names is there.

    Args:
        uri: A list (.jsonl, .csv, .json) or a folder.
        domain: "industrial" or "medical"; sets do not say it of themselves.
        root: The folder that the paths of a list start from; None: the list's own.
        descriptions: What prompts call a class, by the set's own names ("01" → "ring with a dark
            rim"). A class that is not among them keeps its name, with spaces for - and _; of
            AdaCLIP's lists as it is, for that method's prompts.

    Raises:
        DatasetError: an entry is broken, a file is not there, or nothing is labelled.
        OSError: storage does not deliver the set.
    """
    uri = storage.absolute(uri)
    ending = PurePosixPath(uri).suffix.lower()
    if ending in _LISTS:
        base = storage.absolute(root) if root else uri.rpartition("/")[0]
        rows = list(_LISTS[ending](uri, base))
        _check_files(rows, base)
    elif root is None:
        rows = _folder_rows(uri)
    else:
        raise DatasetError(f"{uri} is a folder, so that no root ({root}) can be given")
    if not rows:
        expected = f"{', '.join(_LISTS)}, MVTec's folders"
        raise DatasetError(f"{uri}: no labelled image (expected: {expected})")
    spoken = str if ending == ".json" else _spoken
    return [_labelled(row, domain, spoken, descriptions or {}) for row in rows]


def read_image(item: LabelledImage) -> np.ndarray:
    """Return the image as the model sees it, uint8 (H, W, 3); deep values through their window.

    Raises:
        ScanError: it is broken or not handled; the message names the file.
    """
    scan = _read(item.image)
    if item.mask is not None and "exif_rotated" in scan.flags:
        raise UnsupportedError(
            f"{item.image}: stored on its side, and whether its mask is too is not known; "
            "store both upright"
        )
    return np.array(np.broadcast_to(to_display(scan)[0], (*scan.pixels.shape[1:3], 3)))


def read_mask(item: LabelledImage, shape: tuple[int, int]) -> np.ndarray:
    """Return which pixels are anomalous, bool (H, W); none of a normal image.

    Args:
        item: Of the set.
        shape: Rows and columns of the result. A mask of another size is resized, each pixel
            taking the value of the nearest.

    Raises:
        ScanError: it is broken or has no one meaning; the message names the file.
    """
    if not item.has_pixel_labels:
        raise UnsupportedError(f"{item.image}: anomalous, and no mask says where")
    if item.mask is None:
        return np.zeros(shape, dtype=bool)
    scan = _read(item.mask)
    if "alpha" in scan.flags:
        raise UnsupportedError(f"{item.mask}: a mask with transparency; store it in grey")
    marked = scan.pixels[0] != 0
    marked = marked.any(axis=-1) if marked.ndim == 3 else marked
    if marked.shape == shape:
        return np.asarray(marked)
    size = shape[::-1]  # Pillow counts columns first
    resized = Image.fromarray(marked.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return np.asarray(resized, dtype=bool)


def _labelled(
    row: _Row, domain: str, spoken: Callable[[str], str], descriptions: Mapping[str, str]
) -> LabelledImage:
    class_name = descriptions.get(row.category, spoken(row.category))
    return LabelledImage(
        image=row.image,
        mask=row.mask,
        anomalous=row.anomalous,
        class_name=class_name,
        domain=domain,
        split=row.split,
        category=row.category if row.category != class_name else None,
    )


def _spoken(category: str) -> str:
    return re.sub(r"[_-]+", " ", category).strip()


def _jsonl_rows(uri: str, base: str) -> Iterator[_Row]:
    for number, line in enumerate(_text(uri).splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{uri} line {number}"
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{place}: no JSON ({error.msg}, column {error.colno})") from error
        expected = ("image_path", "label", "class_name", "mask_path")
        yield _row(place, base, _fields(fields, place, ", ".join(expected[:3])), names=expected)


def _visa_rows(uri: str, base: str) -> Iterator[_Row]:
    table = csv.DictReader(io.StringIO(_text(uri)))
    if missing := set(_VISA_COLUMNS) - set(table.fieldnames or ()):
        raise DatasetError(f"{uri}: no column {sorted(missing)}; VisA's are {_VISA_COLUMNS}")
    for fields in table:
        place = f"{uri} line {table.line_num}"
        label = _VISA_LABELS.get(fields["label"], fields["label"])
        described = {**fields, "label": label}
        yield _row(place, base, described, names=("image", "label", "object", "mask"))


def _adaclip_rows(uri: str, base: str) -> Iterator[_Row]:
    try:
        splits = json.loads(_text(uri))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{uri}: no JSON ({error.msg}, line {error.lineno})") from error
    for split, classes in _fields(splits, uri, "splits").items():
        for category, entries in _fields(classes, f"{uri} {split}", "classes").items():
            place = f"{uri} {split}, {category}"
            if not isinstance(entries, list):
                raise DatasetError(f"{place}: must be a list, is {entries!r:.40}")
            for number, entry in enumerate(entries, start=1):
                yield _adaclip_row(f"{place}, entry {number}", base, split, category, entry)


def _adaclip_row(place: str, base: str, split: str, category: str, entry: Any) -> _Row:
    fields = {**_fields(entry, place, "img_path, cls_name, anomaly"), "split": split}
    row = _row(place, base, fields, names=("img_path", "anomaly", "cls_name", "mask_path"))
    if row.category != category:
        raise DatasetError(f"{place}: cls_name must be that of its class, is {row.category!r}")
    return row


def _fields(value: Any, place: str, expected: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DatasetError(f"{place}: must be an object with {expected}, is {value!r:.40}")
    return value


def _row(
    place: str, base: str, fields: Mapping[str, Any], *, names: tuple[str, str, str, str]
) -> _Row:
    """Check the fields of one image; `names` are those of image, label, class and mask."""
    image, label, category, mask = (fields.get(name) for name in names)
    split = fields.get("split") or None
    for name, value in ((names[0], image), (names[2], category)):
        if not isinstance(value, str) or not value.strip():
            raise DatasetError(f"{place}: {name} must be a text, is {value!r}")
    if label not in (0, 1):
        raise DatasetError(f"{place}: {names[1]} must be normal (0) or anomalous (1), is {label!r}")
    if mask is not None and not isinstance(mask, str):
        raise DatasetError(f"{place}: {names[3]} must be a path, is {mask!r}")
    if split not in (None, *_SPLITS):
        raise DatasetError(f"{place}: split must be train or test, is {split!r}")
    return _Row(
        place=place,
        image=storage.join(base, str(image)),
        mask=storage.join(base, mask) if mask and label else None,
        anomalous=bool(label),
        category=str(category),
        split=split,
    )


_LISTS = {".jsonl": _jsonl_rows, ".csv": _visa_rows, ".json": _adaclip_rows}
"""How lists are read, by the endings of their names."""


def _check_files(rows: list[_Row], base: str) -> None:
    """Raise for the first file that is named and not there."""
    named = [(row.place, uri) for row in rows for uri in (row.image, row.mask) if uri]
    there = list(map_ordered(lambda item: storage.exists(item[1]), named))
    missing = [place_uri for place_uri, found in zip(named, there, strict=True) if not found]
    if missing:
        place, uri = missing[0]
        raise DatasetError(
            f"{place}: no file {uri} ({len(missing)} of {len(named)} files are missing); the paths "
            f"of the list are taken from {base}: name another root if they start elsewhere"
        )


def _folder_rows(uri: str) -> list[_Row]:
    """Return the images below a folder that lie as MVTec AD's do, at any depth."""
    images: list[tuple[str, str, str, str]] = []
    masks: dict[tuple[str, str, str], str] = {}
    for file in storage.list_files(uri):
        class_folder, part, kind, name = ["", "", "", *file.uri.rsplit("/", 3)][-4:]
        stem, _, ending = name.rpartition(".")
        if f".{ending.lower()}" not in IMAGE_SUFFIXES:
            continue
        if part in _SPLITS:
            images.append((file.uri, class_folder, kind, stem))
        elif part == "ground_truth":
            masks[class_folder, kind, stem.removesuffix("_mask")] = file.uri
    rows = [_folder_row(*image, masks) for image in images]
    if unused := set(masks.values()) - {row.mask for row in rows}:
        raise DatasetError(f"{min(unused)}: no anomalous image of this name ({len(unused)} such)")
    return rows


def _folder_row(
    uri: str, class_folder: str, kind: str, stem: str, masks: Mapping[tuple[str, str, str], str]
) -> _Row:
    anomalous = kind not in _NORMAL_FOLDERS
    mask = masks.get((class_folder, kind, stem)) if anomalous else None
    if anomalous and mask is None and any(folder == class_folder for folder, _, _ in masks):
        raise DatasetError(f"{uri}: no mask of it in {class_folder}/ground_truth/{kind}")
    return _Row(
        place=uri,
        image=uri,
        mask=mask,
        anomalous=anomalous,
        category=class_folder.rpartition("/")[2],
        split=uri.rsplit("/", 3)[1],
    )


def _text(uri: str) -> str:
    try:
        return storage.read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{uri}: not a text in UTF-8") from error


def _read(uri: str) -> Scan:
    ref = ScanRef(kind=Kind.IMAGE, uri=uri, files=(), scan_id="", study_id="", label="")
    try:
        return read_scan(ref)
    except ScanError as error:
        raise type(error)(f"{uri}: {error}") from error
