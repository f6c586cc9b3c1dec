"""A real PACS as an archive: what it holds is found and read as it would be from files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import dicom_files as files
import numpy as np
import pydicom
import pytest
from dicom_files import OBLIQUE, ROOT, make_instance, make_series
from orthanc import Orthanc, needs_orthanc, running_orthanc
from pydicom.uid import BasicTextSRStorage

from io_adapters import dicomweb
from io_adapters.dicomweb import retrieve, search
from io_adapters.discover import discover
from io_adapters.naming import Naming
from io_adapters.readers import read_scan
from io_adapters.scan import Failure, ScanRef

pytestmark = needs_orthanc

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"
COMPRESSED = ["CT_small.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm", "JPGExtended.dcm",
              "MR_small_bigendian.dcm", "image_dfl.dcm",
              "MR_small_jpeg_ls_lossless.dcm"]  # fmt: skip
N_STUDIES = 7


def series_of(study: int) -> list[bytes]:
    """Return a study of one series of three slices; every second one is MR."""
    values = np.random.default_rng(study).integers(-500, 900, (3, 8, 8)).astype(np.int16)
    uids = {"StudyInstanceUID": f"{ROOT}1.{study}", "SeriesInstanceUID": f"{ROOT}2.{study}"}
    series = make_series(
        values, orientation=OBLIQUE, Modality="MR" if study % 2 else "CT", **uids,
        StudyDate=f"2026010{study + 1}",
    )  # fmt: skip
    for n, item in enumerate(series):
        item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}3.{study}.{n}"
    return [files.encode(item) for item in series]


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Seven studies; the first one has a report and a result of ours too."""
    with running_orthanc(tmp_path_factory.mktemp("pacs")) as running:
        for study in range(N_STUDIES):
            running.put(*series_of(study))
        pixels = np.zeros((8, 8), np.int16)
        first = {"StudyInstanceUID": f"{ROOT}1.0", "Modality": "SR"}
        report = make_instance(
            pixels, SOPClassUID=BasicTextSRStorage, SOPInstanceUID=ROOT + "4", **first,
            SeriesInstanceUID=ROOT + "5", Rows=None, BitsAllocated=None, PixelData=None,
        )  # fmt: skip
        result = make_instance(
            pixels, SOPInstanceUID=ROOT + "6", SeriesInstanceUID=ROOT + "7", Manufacturer="zsad",
            **first,
        )  # fmt: skip
        running.put(files.encode(report), files.encode(result))
        yield running


def find(uri: str, **rules: bool) -> tuple[list[ScanRef], list[Failure], dict[str, int]]:
    discovery = discover([uri], naming=Naming(**rules))
    found = list(discovery)
    refs = [item for item in found if isinstance(item, ScanRef)]
    return refs, [item for item in found if isinstance(item, Failure)], dict(discovery.ignored)


@pytest.mark.parametrize("page", [1, 2, 3, 100])
def test_every_study_is_found_once_whatever_the_pages(
    pacs: Orthanc, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "PAGE", page)
    studies = [series[0].uri for series in search(pacs.uri)]
    assert len(studies) == len(set(studies)) == N_STUDIES


@pytest.mark.parametrize(
    ("query", "count"),
    [("?Modality=CT", 4), ("?ModalitiesInStudy=MR", 3), ("?StudyDate=20260103-20260104", 2),
     ("?StudyDate=20260103-&Modality=MR", 2), ("?PatientID=nobody", 0),
     (f"/studies/{ROOT}1.2", 1), (f"/studies/{ROOT}1.2/series/{ROOT}2.2", 1),
     (f"/studies/{ROOT}1.2?Modality=MR", 0), (f"?SeriesInstanceUID={ROOT}2.3", 1)],
)  # fmt: skip
def test_a_query_chooses_studies_and_series(pacs: Orthanc, query: str, count: int) -> None:
    refs, _, _ = find(pacs.uri + query)
    assert len(refs) == count


def test_a_scan_is_what_it_would_be_from_files(pacs: Orthanc, tmp_path: Path) -> None:
    ((there,), _, _) = find(f"{pacs.uri}/studies/{ROOT}1.3")
    for n, content in enumerate(series_of(3)):
        (tmp_path / f"{n}.dcm").write_bytes(content)
    ((here,), _, _) = find(str(tmp_path))
    assert (there.scan_id, there.study_id, there.label) == (here.scan_id, here.study_id, here.label)
    scan, expected = read_scan(there), read_scan(here)
    np.testing.assert_array_equal(scan.pixels, expected.pixels)
    assert scan.geometry is not None and expected.geometry is not None
    np.testing.assert_array_equal(scan.geometry.affine, expected.geometry.affine)
    assert scan.flags == expected.flags


def test_listing_twice_gives_the_same(pacs: Orthanc) -> None:
    assert sorted(find(pacs.uri)[0], key=lambda ref: ref.scan_id) == sorted(
        find(pacs.uri)[0], key=lambda ref: ref.scan_id
    )


def test_what_is_no_picture_fails_and_our_own_results_are_left_aside(pacs: Orthanc) -> None:
    refs, (failure,), ignored = find(f"{pacs.uri}/studies/{ROOT}1.0")
    assert len(refs) == 1 and ignored == {"results of zsad": 1}
    assert failure.message.startswith("Basic Text SR")


def test_uids_are_shown_only_when_ids_are_kept(pacs: Orthanc) -> None:
    study = f"{pacs.uri}/studies/{ROOT}1.0"
    refs, failures, _ = find(study)
    shown = [text for ref in refs for text in (ref.uri, ref.scan_id, ref.study_id, ref.label)]
    shown += [failure.uri for failure in failures]
    assert not [text for text in shown if ROOT in text]
    assert refs[0].uri == f"{pacs.uri}#{refs[0].scan_id}"
    (kept,), (failure,), _ = find(study, keep_ids=True)
    assert kept.uri.startswith(f"{study}/series/{ROOT}2.0") and failure.uri.startswith(study)
    assert kept.study_id.startswith(f"{ROOT}1.0-") and f"{ROOT}1.0" in kept.label


def test_what_is_below_two_inputs_is_one_scan(pacs: Orthanc) -> None:
    inputs = [f"{pacs.uri}/studies/{ROOT}1.2", f"{pacs.uri}?StudyDate=20260103"]
    assert len(list(discover(inputs))) == 1


@pytest.mark.parametrize("name", COMPRESSED)
def test_every_transfer_syntax_comes_as_it_was_stored(pacs: Orthanc, name: str) -> None:
    """Not transcoded on the way, which would cost time, and where it is lossy, the truth."""
    content = (PACKAGED / name).read_bytes()
    study = pydicom.dcmread(io.BytesIO(content)).StudyInstanceUID
    pacs.put(content)
    ((series,),) = search(f"{pacs.uri}/studies/{study}")
    ((file, _),) = series.instances
    assert retrieve(file.uri) == content
    pacs.delete_study(study)
