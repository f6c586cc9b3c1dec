"""URIs of a PACS: a service, and what is asked of it.

`dicomweb://host[:port]/root?StudyDate=20260101-&Modality=CT` is asked over HTTPS,
`dicomweb+http://…` without encryption.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from pydicom.datadict import keyword_for_tag, tag_for_keyword

USER, PASSWORD, TOKEN = "ZSAD_DICOMWEB_USER", "ZSAD_DICOMWEB_PASSWORD", "ZSAD_DICOMWEB_TOKEN"
"""The environment variables that say who asks."""

_SCHEMES = {"dicomweb": "https", "dicomweb+http": "http"}
_BELOW = re.compile(r"(?P<root>.*?)/studies(?:/(?P<study>[^/]+)(?:/series/(?P<series>[^/]+))?)?")
_SERIES_KEYS = frozenset(
    {
        *("Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "SeriesDate"),
        *("SeriesTime", "BodyPartExamined", "ProtocolName", "Laterality", "StationName"),
        *("Manufacturer", "ManufacturerModelName"),
        *("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime"),
    }
)
"""What series are chosen by; every other key is the studies' or the patients'."""
_INSTANCE_KEYS = frozenset({"SOPInstanceUID", "SOPClassUID", "InstanceNumber"})
_SHOWN_KEYS = frozenset({"Modality", "ModalitiesInStudy", "BodyPartExamined", "StudyDate"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """What is asked of which PACS."""

    root: str
    """The URI of the DICOMweb service."""
    studies: Mapping[str, str]
    """What studies must match, by keyword."""
    series: Mapping[str, str]
    """What their series must match."""


def is_pacs(uri: str) -> bool:
    """Tell whether a URI is one of a PACS."""
    return uri.partition("://")[0] in _SCHEMES


def parse_query(uri: str) -> Query:
    """Take the URI of a service, a study or a series apart.

    Raises:
        ValueError: it makes no sense, or holds a password; the message does not quote it.
    """
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        raise ValueError(
            f"a password in a URI ends up in logs: set {USER} and {PASSWORD}, or {TOKEN}"
        )
    if not parts.hostname:
        raise ValueError("there is no host: write dicomweb://host/dicom-web?StudyDate=20260101-")
    path, keys = parts.path.rstrip("/"), _keys(parts.query)
    if below := _BELOW.fullmatch(path):
        path = below["root"]
        named = {"StudyInstanceUID": below["study"], "SeriesInstanceUID": below["series"]}
        keys |= {keyword: unquote(uid) for keyword, uid in named.items() if uid}
    return Query(
        root=f"{parts.scheme}://{parts.netloc}{path}",
        studies={key: value for key, value in keys.items() if key not in _SERIES_KEYS},
        series={key: value for key, value in keys.items() if key in _SERIES_KEYS},
    )


def root_of(uri: str) -> str:
    """Return the URI of the service that another URI lies below."""
    return uri.partition("?")[0].partition("/studies/")[0].rstrip("/")


def url_of(uri: str) -> str:
    """Return the URL that a URI stands for."""
    scheme, _, rest = uri.partition("://")
    return f"{_SCHEMES[scheme]}://{rest}"


def host_of(uri: str) -> str:
    """Return host and port."""
    return urlsplit(uri).netloc


def scheme_of(uri: str) -> str:
    """Return what a URI begins with: all that may be said of one that makes no sense."""
    return uri.partition("://")[0] + "://…"


def shown(uri: str) -> str:
    """Return a URI that anyone may see: no UID, and nothing that chooses a patient."""
    if not is_pacs(uri):
        return uri
    below = "/studies/…" if "/studies/" in uri else ""
    pairs = parse_qsl(urlsplit(uri).query)
    query = "&".join(f"{key}={value if key in _SHOWN_KEYS else '…'}" for key, value in pairs)
    return root_of(uri) + below + (query and f"?{query}")


def _keys(query: str) -> dict[str, str]:
    """Return a query's keys as DICOM keywords.

    A PACS that does not know a key leaves it aside and returns everything, so it is refused here.
    """
    keys: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        keyword = keyword_for_tag(name) if re.fullmatch(r"[0-9A-Fa-f]{8}", name) else name
        if not keyword or tag_for_keyword(keyword) is None:
            raise ValueError(f"{name!r} is no keyword of a DICOM attribute")
        if keyword in _INSTANCE_KEYS:
            raise ValueError(f"{name} chooses single instances: choose studies or series")
        if keyword in keys:
            raise ValueError(f"{name} is there twice")
        if not value:
            raise ValueError(f"{name} has no value")
        keys[keyword] = value
    return keys
