"""BIDS, the Brain Imaging Data Structure: what the path of a file says about it.

    DATASET/dataset_description.json
    DATASET/sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz
            subject session datatype     entities   suffix

Reading needs the path alone, so it works on any listing and in any worker.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from io_adapters import storage

DESCRIPTION = "dataset_description.json"
"""The file that makes a folder a dataset."""
CLASS_NAME = "brain"
"""What volumes of every datatype show."""

_NOT_RAW = frozenset({"derivatives", "sourcedata", "code", "stimuli"})
"""Folders of a dataset that hold something else than its own pictures."""
_BEFORE_DESCRIPTION = frozenset(name for name in _NOT_RAW if name < DESCRIPTION)
_NOT_IMAGING = frozenset({"beh", "eeg", "emg", "ieeg", "meg", "motion", "mrs", "nirs"})
"""Datatypes without pictures of the subject's inside; some come with photographs of its outside."""
_SUFFIXES = {
    "anat": "T1w T2w PDw T2starw FLAIR inplaneT1 inplaneT2 PDT2 angio T2star FLASH PD T1map T2map "
    "T2starmap R1map R2map R2starmap PDmap MTRmap MTsat MTVmap MWFmap Chimap S0map M0map UNIT1 "
    "T1rho MESE MEGRE VFA IRT1 MP2RAGE MPM MTS MTR defacemask",
    "func": "bold cbv sbref phase",
    "dwi": "dwi sbref ADC FA S0map colFA expADC trace",
    "perf": "asl m0scan",
    "fmap": "magnitude magnitude1 magnitude2 epi m0scan phase1 phase2 phasediff fieldmap TB1DAM "
    "TB1EPI TB1AFI TB1TFL TB1RFM TB1SRGE TB1map RB1COR RB1map",
    "pet": "pet",
}
_VOLUMES = {datatype: frozenset(names.split()) for datatype, names in _SUFFIXES.items()}
_NO_ANATOMY = re.compile("phase(1|2|diff)?|fieldmap|defacemask|[TR]B1.*")
"""Suffixes of field maps and masks."""
_PARTS_OF_COMPLEX = frozenset({"phase", "real", "imag"})

_LABEL = "[A-Za-z0-9+]+"
_NAME = re.compile(
    rf"(?:(?P<root>.*)/)?sub-(?P<sub>{_LABEL})(?:/ses-(?P<ses>{_LABEL}))?/(?P<datatype>[a-z]+)"
    rf"/(?P<entities>sub-{_LABEL}(?:_[a-z]+-{_LABEL})*)_(?P<suffix>[A-Za-z0-9]+)\.nii(?:\.gz)?"
)
_SESSION = re.compile(r"(?:.*/)?(sub-[^/]+(?:/ses-[^/]+)?)/")
_DATATYPE = re.compile(r"(?:.*/)?sub-[^/]+(?:/ses-[^/]+)?/(?P<datatype>[a-z]+)/")


@dataclass(frozen=True, kw_only=True, slots=True)
class BidsName:
    """What the path of a raw BIDS volume says."""

    root: str
    """URI of the dataset's folder."""
    datatype: str
    """"anat", "func", "dwi", …"""
    entities: tuple[tuple[str, str], ...]
    """Key and label of each, in the order of the file's name: ("sub", "01"), ("run", "2")."""
    suffix: str
    """What was measured: "T1w", "bold", …"""

    @property
    def stem(self) -> str:
        """The file's name without its extension."""
        return "_".join([*(f"{key}-{label}" for key, label in self.entities), self.suffix])

    @property
    def shows_anatomy(self) -> bool:
        """Whether it is a picture of the subject; field maps, phases and masks are not."""
        is_magnitude = dict(self.entities).get("part") not in _PARTS_OF_COMPLEX
        return is_magnitude and not _NO_ANATOMY.fullmatch(self.suffix)


def parse(uri: str) -> BidsName | None:
    """Return what a volume's path says, or None where it does not follow the rules of BIDS.

    Folders and name must agree on subject and session, and the datatype must have such a suffix,
    so that a name that only looks like BIDS is not taken for it.
    """
    found = _NAME.fullmatch(uri)
    if not found:
        return None
    pairs = (part.partition("-") for part in found["entities"].split("_"))
    entities = tuple((key, label) for key, _, label in pairs)
    by_key = dict(entities)
    if (
        len(by_key) < len(entities)
        or (by_key["sub"], by_key.get("ses")) != (found["sub"], found["ses"])
        or found["suffix"] not in _VOLUMES.get(found["datatype"], ())
    ):
        return None
    return BidsName(
        root=found["root"] or "",
        datatype=found["datatype"],
        entities=entities,
        suffix=found["suffix"],
    )


def session_folder(uri: str) -> tuple[str, str] | None:
    """Return the URI of the subject's or session's folder that a file lies in, and its own path.

    The path is "sub-01" or "sub-01/ses-a". Any file below such a folder counts, well named or not.
    """
    found = _SESSION.match(uri)
    return (uri[: found.end(1)], found[1]) if found else None


class Datasets:
    """The datasets that come to light while an input is listed, by folders or in order of keys.

    By folders, a dataset's description comes before anything below its folder. In order of keys, it
    comes before the subjects, derivatives and sources, and is looked for when code is met.
    """

    def __init__(self, root: str) -> None:
        """Look above the input as well, where it is a part of a dataset.

        Args:
            root: URI of the input.
        """
        self._input = root
        self._roots: set[str] = set()
        self._derived: set[str] = set()
        self._looked_at = ""
        session = session_folder(f"{root}/")
        if session:
            above = session[0].removesuffix(session[1]).rstrip("/")
            if storage.exists(storage.join(above, DESCRIPTION)):
                self._roots.add(above)

    def why_ignored(self, uri: str) -> str | None:
        """Return why a file is no scan of its dataset ("BIDS derivatives"), None where it may be.

        Derivatives, sources and stimuli are left aside, and of the subjects what is no picture of
        anatomy. What lies outside of every dataset is never ignored here, nor is a dataset of
        derivatives that is the input itself.

        Args:
            uri: The next file of the listing.
        """
        inside = False
        for slash in re.finditer("/", uri):
            above = uri[: slash.start()]
            if above in self._derived:
                return "BIDS derivatives"
            top = uri[slash.end() :].partition("/")[0]
            if top in _BEFORE_DESCRIPTION and len(above) >= len(self._input):
                self._look_at(above)
            if above in self._roots:
                if top in _NOT_RAW:
                    return f"BIDS {top}"
                inside = True
        folder, _, name = uri.rpartition("/")
        if name == DESCRIPTION:
            self._roots.add(folder)
            if folder != self._input and _is_derivative(uri):
                self._derived.add(folder)
        return _why_no_picture(uri) if inside else None

    def _look_at(self, folder: str) -> None:
        """See whether a folder is a dataset; once for all that follows of what is below it."""
        if folder not in self._roots and folder != self._looked_at:
            self._looked_at = folder
            if storage.exists(storage.join(folder, DESCRIPTION)):
                self._roots.add(folder)


def _is_derivative(description: str) -> bool:
    try:
        return bool(json.loads(storage.read_bytes(description))["DatasetType"] == "derivative")
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _why_no_picture(uri: str) -> str | None:
    found = _DATATYPE.match(uri)
    if found and found["datatype"] in _NOT_IMAGING:
        return f"BIDS {found['datatype']}"
    name = parse(uri)
    return f"BIDS {name.suffix} without anatomy" if name and not name.shows_anatomy else None
