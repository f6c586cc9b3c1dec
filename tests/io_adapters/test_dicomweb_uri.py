"""URIs of a PACS: what is asked is what was meant, or nothing; what is shown names no patient."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_adapters.dicomweb_uri import host_of, is_pacs, parse_query, root_of, shown, url_of


@pytest.mark.parametrize(
    ("uri", "root", "studies", "series"),
    [
        ("dicomweb://h/dicom-web", "dicomweb://h/dicom-web", {}, {}),
        ("dicomweb://h:8042/a/b/?StudyDate=2026-", "dicomweb://h:8042/a/b",
         {"StudyDate": "2026-"}, {}),
        ("dicomweb://h?Modality=CT&PatientID=7", "dicomweb://h",
         {"PatientID": "7"}, {"Modality": "CT"}),
        ("dicomweb://h/w?00080060=MR", "dicomweb://h/w", {}, {"Modality": "MR"}),
        ("dicomweb://h/w?PatientName=A%5EB", "dicomweb://h/w", {"PatientName": "A^B"}, {}),
        ("dicomweb://h/w/studies", "dicomweb://h/w", {}, {}),
        ("dicomweb://h/w/studies/1.2", "dicomweb://h/w", {"StudyInstanceUID": "1.2"}, {}),
        ("dicomweb+http://h/w/studies/1.2/series/3?Modality=CT", "dicomweb+http://h/w",
         {"StudyInstanceUID": "1.2"}, {"SeriesInstanceUID": "3", "Modality": "CT"}),
    ],
)  # fmt: skip
def test_a_uri_says_what_studies_and_series_must_match(
    uri: str, root: str, studies: dict[str, str], series: dict[str, str]
) -> None:
    query = parse_query(uri)
    assert (query.root, query.studies, query.series) == (root, studies, series)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("dicomweb://h/w?StudyDat=20260101", "'StudyDat' is no keyword"),
        ("dicomweb://h/w?limit=10", "'limit' is no keyword"),
        ("dicomweb://h/w?99999999=1", "'99999999' is no keyword"),
        ("dicomweb://h/w?SOPInstanceUID=1.2", "single instances"),
        ("dicomweb://h/w?Modality=CT&00080060=MR", "twice"),
        ("dicomweb://h/w?Modality=", "no value"),
        ("dicomweb:///w?Modality=CT", "no host"),
        ("dicomweb://doe:secret@h/w", "ZSAD_DICOMWEB_PASSWORD"),
    ],
)
def test_a_uri_that_would_ask_for_something_else_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        parse_query(uri)
    assert "secret" not in str(error.value)


def test_only_a_plain_scheme_leaves_the_connection_unencrypted() -> None:
    assert url_of("dicomweb://h/w") == "https://h/w"
    assert url_of("dicomweb+http://h/w") == "http://h/w"
    assert is_pacs("dicomweb://h") and not is_pacs("s3://b/dicomweb://h") and not is_pacs("/a/b")


def test_what_is_shown_leads_to_no_patient() -> None:
    uri = "dicomweb://h/w/studies/1.2.3?PatientName=DOE&PatientID=7&Modality=CT&StudyDate=2026-"
    assert (
        shown(uri)
        == "dicomweb://h/w/studies/…?PatientName=…&PatientID=…&Modality=CT&StudyDate=2026-"
    )
    assert shown("/data/a?b") == "/data/a?b"


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=20)


@given(
    host=st.from_regex(r"[a-z][a-z0-9.]{0,9}(:[1-9][0-9]{0,3})?", fullmatch=True),
    path=st.from_regex(r"(/[a-rt-z-]{1,8}){0,3}", fullmatch=True),
    study=st.from_regex(r"[0-9.]{1,64}", fullmatch=True),
)
def test_the_service_is_found_in_every_uri_below_it(host: str, path: str, study: str) -> None:
    root = f"dicomweb://{host}{path}"
    for below in ("", "/", "?Modality=CT", f"/studies/{study}", f"/studies/{study}/series/1"):
        assert root_of(root + below) == parse_query(root + below).root == root
    assert root_of(f"{root}/studies/{study}/series/1/instances/2") == root
    assert host_of(root) == host


@given(uri=st.one_of(TEXT, TEXT.map(lambda rest: f"dicomweb://{rest}")))
def test_any_text_is_understood_or_refused(uri: str) -> None:
    try:
        query = parse_query(uri)
    except ValueError:
        return
    assert host_of(query.root)
