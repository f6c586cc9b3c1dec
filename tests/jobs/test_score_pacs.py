"""From a PACS and back: a study is found by query, scored, and its results are filed beside it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
import requests
from dicom_files import OBLIQUE, ROOT, encode, make_series
from dicomweb_client.api import DICOMwebClient
from orthanc import Orthanc, needs_orthanc, running_orthanc
from ports import free_ports

from io_adapters.dicomweb import retrieve
from io_adapters.dicomweb_uri import url_of
from jobs import run as run_module
from jobs.score_dataset import RUN_FAILED, SCORED, SOME_FAILED, WRONG_USAGE, main

pytestmark = [pytest.mark.usefixtures("without_ray"), needs_orthanc]

STUDIES = {"CT": ROOT + "1.1", "MR": ROOT + "1.2"}


def study(modality: str, *, slices: int = 12) -> list[pydicom.Dataset]:
    """Return a study of one series."""
    rng = np.random.default_rng(len(modality) + slices)
    series = make_series(
        rng.integers(-500, 900, (slices, 32, 32)).astype(np.int16),
        orientation=OBLIQUE,
        Modality=modality,
        StudyInstanceUID=STUDIES[modality],
        SeriesInstanceUID=STUDIES[modality] + ".1",
        FrameOfReferenceUID=STUDIES[modality] + ".2",
    )
    for n, instance in enumerate(series):
        instance.SOPInstanceUID = f"{STUDIES[modality]}.1.{n}"
        instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    return series


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A PACS with a CT and an MR study, stored there over DICOMweb."""
    with running_orthanc(tmp_path_factory.mktemp("pacs")) as running:
        client = DICOMwebClient(url_of(running.uri))
        for modality in STUDIES:
            files = [pydicom.dcmread(io.BytesIO(encode(item))) for item in study(modality)]
            client.store_instances(files)
        yield running


def ct_study(pacs: Orthanc, output: Path, target: Orthanc) -> tuple[object, ...]:
    """Return the arguments to score the CT study, with every kind of result for another PACS."""
    query = f"{pacs.uri}?ModalitiesInStudy=CT&StudyDate=20200101-&PatientID=X"
    return "--input", query, "--output", output, target.uri, "--dicom-output", "seg,sc,pm,sr"


def score(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def scored(pacs: Orthanc, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the CT study, sent back to where it came from."""
    output = tmp_path_factory.mktemp("scored") / "out"
    assert score(*ct_study(pacs, output, pacs), "--checkpoint", tiny_checkpoint) == SCORED
    return output


def test_what_the_query_matches_is_scored(scored: Path) -> None:
    (row,) = pq.read_table(scored / "scores.parquet").to_pylist()
    assert (row["modality"], row["n_slices"], row["shape"]) == ("CT", 12, [12, 32, 32])


def test_results_come_back_from_the_pacs_as_they_were_written(scored: Path, pacs: Orthanc) -> None:
    written = list(scored.glob("scans/*/*/*.dcm"))
    assert written
    for path in written:
        result = pydicom.dcmread(path)
        assert result.StudyInstanceUID == STUDIES["CT"] and result.PatientID == "X"
        series = f"{pacs.uri}/studies/{STUDIES['CT']}/series/{result.SeriesInstanceUID}"
        assert retrieve(f"{series}/instances/{result.SOPInstanceUID}") == path.read_bytes()
    assert {pydicom.dcmread(path).Modality for path in written} == {"SEG", "OT", "SR"}


def test_the_studies_themselves_are_not_touched(scored: Path, pacs: Orthanc) -> None:
    stored = pacs.files()
    for modality in STUDIES:
        for instance in study(modality):
            assert stored[instance.SOPInstanceUID] == encode(instance)


def test_uids_and_queries_are_in_no_record_and_no_name(scored: Path) -> None:
    everything = [path for path in scored.rglob("*") if path.suffix != ".dcm"]
    assert not [path for path in everything if ROOT in str(path)]
    files = [path for path in everything if path.is_file() and path.suffix != ".png"]
    assert not [path for path in files if ROOT.encode() in path.read_bytes()]
    settings = json.loads((scored / "run.json").read_text())["settings"]
    assert settings["input"][0].endswith("?ModalitiesInStudy=CT&StudyDate=20200101-&PatientID=…")
    (row,) = pq.read_table(scored / "scores.parquet").to_pylist()
    assert row["uri"].endswith(f"/dicom-web#{row['scan_id']}")


def test_a_second_run_scores_and_sends_nothing_again_not_even_its_own_results(
    scored: Path, pacs: Orthanc, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object) -> None:
        raise AssertionError("there is nothing to do")

    monkeypatch.setattr(run_module, "run_stages", nothing)
    monkeypatch.setattr("io_adapters.dicomweb.store", nothing)
    assert score(*ct_study(pacs, scored, pacs), "--checkpoint", tiny_checkpoint) == SCORED
    counts = json.loads((scored / "run.json").read_text())["counts"]
    assert (counts["committed"], counts["resumed"], counts["failed"]) == (1, 1, 0)
    assert counts["ignored"] == {"results of zsad": len(list(scored.glob("scans/*/*/*.dcm")))}


def test_a_pacs_that_is_away_costs_no_result_and_gets_it_later(
    scored: Path,
    pacs: Orthanc,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("io_adapters.dicomweb.time.sleep", lambda _: None)
    output = shutil.copytree(scored, tmp_path / "out")
    written = sorted(path.name for path in output.glob("scans/*/*/*.dcm"))
    with running_orthanc(tmp_path / "second") as second:
        arguments = (*ct_study(pacs, output, second), "--checkpoint", tiny_checkpoint)
        with monkeypatch.context() as patched:
            patched.setattr("io_adapters.dicomweb._store", _lost)
            assert score(*arguments) == SOME_FAILED
        (failure,) = (output / "failures.csv").read_text().splitlines()[1:]
        assert ",send," in failure and "does not answer" in failure and ROOT not in failure
        assert not second.files() and len(pq.read_table(output / "scores.parquet")) == 1
        assert score(*arguments) == SCORED
        assert len(second.files()) == len(written)
        (sent,) = output.glob("scans/*/*/sent.json")
        assert json.loads(sent.read_text()) == {pacs.uri: written, second.uri: written}


def _lost(*_: object) -> None:
    raise requests.ConnectionError


def test_a_dry_run_tells_what_there_is_and_writes_nothing(
    pacs: Orthanc, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    before = ("--input", pacs.uri, "--output", output, "--checkpoint", tiny_checkpoint)
    assert score(*before, "--dry-run") == SCORED
    assert "2 scans, 0.0 MB and what a PACS will send" in capsys.readouterr().out
    assert not output.exists()


def test_who_may_not_ask_is_told_what_to_set(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    user = ("ada", "secret-word")
    with running_orthanc(tmp_path / "pacs", user=user) as closed:
        closed.put(*map(encode, study("MR")))
        before = ("--input", closed.uri, "--output", tmp_path / "out")
        arguments = (*before, "--checkpoint", tiny_checkpoint)
        assert score(*arguments) == RUN_FAILED
        assert "401: set ZSAD_DICOMWEB_USER" in capsys.readouterr().err
        monkeypatch.setenv("ZSAD_DICOMWEB_USER", user[0])
        monkeypatch.setenv("ZSAD_DICOMWEB_PASSWORD", user[1])
        assert score(*arguments, "--dry-run") == SCORED
        assert "1 scans" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("input_", "code", "message"),
    [
        ("dicomweb+http://127.0.0.1:{free}/dicom-web", RUN_FAILED, "does not answer"),
        ("{pacs}-not-here", RUN_FAILED, "404: is /dicom-web-not-here its DICOMweb service"),
        ("{pacs}?StudyDat=20200101", WRONG_USAGE, "'StudyDat' is no keyword"),
        ("dicomweb://ada:secret-word@host/w", WRONG_USAGE, "ZSAD_DICOMWEB_PASSWORD"),
    ],
    ids=["nobody there", "another path", "a misspelt key", "a password"],
)
def test_what_cannot_work_is_one_line(
    input_: str,
    code: int,
    message: str,
    pacs: Orthanc,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri = input_.format(free=free_ports(1)[0], pacs=pacs.uri)
    before = ("--input", uri, "--output", tmp_path / "out", "--checkpoint", tiny_checkpoint)
    assert score(*before) == code
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and message in printed
    assert len(printed.splitlines()) == 1 and "secret-word" not in printed


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (["dicomweb://h/w"], "names 0 folders"),
        (["a", "b"], "names 2 folders"),
        (["a", "dicomweb://h/w?Modality=CT"], "name the service alone, dicomweb://h/w"),
        (["a", "dicomweb://ada:secret@h/w"], "ZSAD_DICOMWEB_PASSWORD"),
        (["a", "dicomweb://h/w", "--dicom-output", "none"], "leaves nothing to send"),
    ],
)
def test_outputs_are_one_folder_and_any_pacs(
    outputs: list[str], message: str, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        score("--input", ".", "--checkpoint", tiny_checkpoint, "--output", *outputs) == WRONG_USAGE
    )
    assert message in capsys.readouterr().err


def test_no_match_is_said_and_is_no_failure(
    pacs: Orthanc, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = f"{pacs.uri}?StudyDate=19000101"
    before = ("--input", query, "--output", tmp_path / "out", "--checkpoint", tiny_checkpoint)
    assert score(*before) == SCORED
    assert "nothing to score in" in capsys.readouterr().out
