"""Names of scans and studies: safe as file names, stable between runs, silent about patients.

Instance UIDs, paths and object keys lead back to a patient, so medical scans are named by a keyed
hash of them. Who holds the key (environment variable `ZSAD_ID_KEY`) can recompute a name; without
a key anyone who guesses a path or a UID can, which is fine inside a hospital and not beyond.
"""

from __future__ import annotations

import hmac
import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from io_adapters import bids
from io_adapters.dicomweb_uri import is_pacs, root_of
from io_adapters.scan import Kind

_SLUG_LENGTH = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Naming:
    """How scans get their ids, labels and class names."""

    keep_ids: bool = False
    """Whether names of medical scans come from their paths, patient data or not."""
    medical_images: bool = False
    """Whether PNG, JPEG, … are medical, and named like DICOM and NIfTI."""
    class_from_folder: bool = False
    """Whether the folder a file lies in names what it shows ("metal_nut")."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What a scan is called; the fields of `ScanRef` of the same names."""

    scan_id: str
    study_id: str
    label: str
    class_name: str | None


def name_file(kind: Kind, uri: str, relative: str, naming: Naming) -> Names:
    """Name a scan that is a file of its own, an image or NIfTI.

    Args:
        kind: IMAGE or NIFTI.
        uri: Its absolute URI, what the hash is made of.
        relative: Its path from the input root, what a person would call it.
        naming: The rules.
    """
    study_uri, session = bids.session_folder(uri) or (uri, None)
    class_name = class_of(uri, naming)
    if naming.keep_ids or (kind is Kind.IMAGE and not naming.medical_images):
        called = bids.parse(uri)
        label = called.stem if called else printable(relative)
        scan_id = slug_id(label, uri)
        study_id = slug_id(session.replace("/", "_"), study_uri) if session else scan_id
        return Names(scan_id=scan_id, study_id=study_id, label=label, class_name=class_name)
    scan_id = hashed_id(kind, uri)
    study_id = hashed_id("study", study_uri) if session else scan_id
    return Names(scan_id=scan_id, study_id=study_id, label=scan_id, class_name=class_name)


def class_of(uri: str, naming: Naming) -> str | None:
    """Return what a file shows: what its folder says, if the rules ask for it, or BIDS."""
    if not naming.class_from_folder:
        return bids.CLASS_NAME if bids.parse(uri) else None
    return re.sub(r"[_-]+", " ", PurePosixPath(uri).parent.name).strip() or None


def shown_uri(uri: str, name: str, naming: Naming) -> str:
    """Return what tables say of where a scan is: the UIDs that a PACS finds it by are left out."""
    return printable(uri) if naming.keep_ids or not is_pacs(uri) else f"{root_of(uri)}#{name}"


def hashed_id(prefix: str, identity: str) -> str:
    """Return a prefix and 16 hexadecimal digits of the keyed hash of what identifies a scan."""
    return f"{prefix}-{keyed_hash(identity)}"


def slug_id(readable: str, identity: str) -> str:
    """Return a path made safe as a file name, and 12 digits of hash that make it unique."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", readable)[-_SLUG_LENGTH:].strip("-.")
    return f"{slug or 'scan'}-{keyed_hash(identity)[:12]}"


def keyed_hash(identity: str) -> str:
    """Return 16 hexadecimal digits that stand for a UID or a path, and do not lead back to it."""
    return keyed_digest(identity)[:8].hex()


def keyed_digest(identity: str) -> bytes:
    """Return the same as 32 bytes, for what there may be billions of."""
    key = os.environ.get("ZSAD_ID_KEY", "").encode()
    return hmac.digest(key, identity.encode("utf-8", "surrogateescape"), "sha256")


def printable(path: str) -> str:
    """Return a path without what a file system allows in a name and UTF-8 does not."""
    return path.encode("utf-8", "replace").decode()
