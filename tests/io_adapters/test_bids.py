"""A BIDS path says what a volume is; a dataset says which of its files are no scans."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from bids_dataset import IGNORED, SCANS, write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from io_adapters import bids, storage
from io_adapters.discover import discover
from io_adapters.naming import Naming
from io_adapters.readers import read_scan
from io_adapters.scan import ScanRef

LABELS = st.text("abcXYZ0189", min_size=1, max_size=8)
SUFFIXES = [("anat", "T1w"), ("func", "bold"), ("dwi", "dwi"), ("perf", "asl"), ("pet", "pet")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("bids") / "ds")


def find(*roots: Path, **rules: bool) -> tuple[dict[str, ScanRef], Counter[str]]:
    """Return the refs by their path below the first root, and what was ignored."""
    discovery = discover([str(root) for root in roots], naming=Naming(**rules))
    found = list(discovery)
    assert all(isinstance(item, ScanRef) for item in found), found
    return {item.uri.removeprefix(f"{roots[0]}/"): item for item in found}, discovery.ignored


# Paths


@settings(deadline=None)  # a busy machine is no failure
@given(
    root=st.sampled_from(["/data/ds", "s3://bucket/sub-set/ds", "/data/sub-01/ses-1", "/ds+1"]),
    subject=LABELS,
    session=st.none() | LABELS,
    others=st.dictionaries(st.sampled_from(["task", "acq", "run", "echo", "dir"]), LABELS),
    kind=st.sampled_from(SUFFIXES),
    extension=st.sampled_from([".nii", ".nii.gz"]),
)  # fmt: skip
def test_a_path_is_parsed_into_what_it_was_built_from(
    root: str,
    subject: str,
    session: str | None,
    others: dict[str, str],
    kind: tuple[str, str],
    extension: str,
) -> None:
    entities = {"sub": subject} | ({"ses": session} if session else {}) | others
    folders = [f"{key}-{label}" for key, label in entities.items() if key in {"sub", "ses"}]
    stem = "_".join([*(f"{key}-{label}" for key, label in entities.items()), kind[1]])
    name = bids.parse("/".join([root, *folders, kind[0], stem + extension]))
    assert name is not None
    assert (name.root, name.datatype, name.suffix) == (root, *kind)
    assert dict(name.entities) == entities and name.stem == stem


@pytest.mark.parametrize(
    "path",
    [
        "ds/sub-01/anat/sub-02_T1w.nii",  # another subject's
        "ds/sub-01/ses-a/anat/sub-01_T1w.nii",  # without its session
        "ds/sub-01/anat/sub-01_ses-a_T1w.nii",  # with a session that is no folder
        "ds/sub-01/anat/sub-01_bold.nii",  # a suffix of another datatype
        "ds/sub-01/anat/sub-01_DoeJohn.nii",
        "ds/sub-01/sub-01_T1w.nii",
        "ds/sub-01/anat/T1w.nii",
        "ds/sub-01/anat/sub-01_run-1_run-2_T1w.nii",
        "ds/sub-01/anat/sub-01_run_T1w.nii",
        "ds/sub-0 1/anat/sub-0 1_T1w.nii",
        "ds/sub-01/anat/sub-01_T1w.nii.gz.txt",
        "ds/sub-01/anat/sub-01_T1w.json",
    ],
)
def test_what_only_looks_like_bids_is_not_taken_for_it(path: str) -> None:
    assert bids.parse(path) is None


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.text(max_size=60) | st.from_regex(r"(/|sub-|ses-|anat|_|T1w|\.nii){0,12}", fullmatch=True)
)
def test_any_path_is_parsed_or_not(path: str) -> None:
    name = bids.parse(path)
    assert name is None or f"/{name.stem}." in path
    session = bids.session_folder(path)
    assert session is None or (path.startswith(session[0]) and session[0].endswith(session[1]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sub-1_T1w", True), ("sub-1_part-mag_T1w", True), ("sub-1_part-phase_T1w", False),
     ("sub-1_part-imag_T1w", False), ("sub-1_defacemask", False)],
)  # fmt: skip
def test_phases_and_masks_show_no_anatomy(name: str, expected: bool) -> None:
    parsed = bids.parse(f"/ds/sub-1/anat/{name}.nii")
    assert parsed is not None and parsed.shows_anatomy is expected


# Datasets


def test_scans_of_a_dataset_are_found_and_all_else_is_counted(dataset: Path) -> None:
    refs, ignored = find(dataset)
    assert set(refs) == set(SCANS)
    assert ignored == Counter(IGNORED.values())


@pytest.mark.parametrize("part", ["", "sub-01", "derivatives/x", "code"])
def test_the_order_of_keys_finds_the_same_as_that_of_folders(
    tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Object stores list code before the description that makes it code."""
    root = write_dataset(tmp_path / "ds")
    for name in ("code/a/figure.png", "code/figure.png", "code/code/x.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(root / name)
    expected = find(root / part)
    list_files = storage.list_files
    monkeypatch.setattr(
        storage, "list_files", lambda uri: sorted(list_files(uri), key=lambda file: file.uri)
    )
    assert find(root / part) == expected
    assert expected[1]["BIDS code"] == (3 if part == "" else 0)


def test_subject_and_session_make_the_study_and_the_suffix_the_modality(dataset: Path) -> None:
    refs, _ = find(dataset)
    t1w, bold, session_a, session_b = (refs[name] for name in SCANS)
    assert t1w.study_id == bold.study_id
    assert len({t1w.study_id, session_a.study_id, session_b.study_id}) == 3
    assert {ref.class_name for ref in refs.values()} == {"brain"}
    assert [read_scan(refs[name]).modality for name in SCANS] == ["T1w", "bold", "T2w", "T1w"]


def test_kept_names_are_those_of_bids(dataset: Path) -> None:
    refs, _ = find(dataset, keep_ids=True)
    ref = refs[SCANS[2]]
    assert ref.label == "sub-02_ses-a_acq-DoeJohn_T2w"
    assert ref.scan_id.startswith("sub-02_ses-a_acq-DoeJohn_T2w-")
    assert ref.study_id.startswith("sub-02_ses-a-")


def test_hashed_names_hold_no_label_of_the_dataset(dataset: Path) -> None:
    for ref in find(dataset)[0].values():
        named = f"{ref.scan_id} {ref.study_id} {ref.label}"
        assert not [word for word in ("sub", "ses", "DoeJohn", "rest") if word in named]


def test_class_names_from_folders_win_when_asked_for(dataset: Path) -> None:
    refs, _ = find(dataset, class_from_folder=True)
    assert refs[SCANS[0]].class_name == "anat"


def test_a_part_of_a_dataset_follows_its_rules(dataset: Path) -> None:
    refs, ignored = find(dataset / "sub-01")
    assert set(refs) == {"anat/sub-01_T1w.nii.gz", "func/sub-01_task-rest_run-2_bold.nii.gz"}
    assert ignored["BIDS eeg"] == 1 and ignored["BIDS phasediff without anatomy"] == 1


def test_derivatives_are_scored_when_they_are_the_input(dataset: Path) -> None:
    refs, _ = find(dataset / "derivatives" / "x")
    assert set(refs) == {"sub-01/anat/sub-01_desc-brain_T1w.nii.gz"}
    refs, _ = find(dataset, dataset / "derivatives" / "x")
    assert len(refs) == len(SCANS) + 1


def test_a_dataset_says_itself_that_it_is_derived(tmp_path: Path) -> None:
    for name, kind in (("raw", "raw"), ("derived", "derivative")):
        root = write_dataset(tmp_path / name)
        (root / "dataset_description.json").write_text(json.dumps({"DatasetType": kind}))
    refs, ignored = find(tmp_path)
    assert set(refs) == {f"raw/{name}" for name in SCANS}
    assert sum(ignored.values()) == len(SCANS) + 2 * len(IGNORED)
    refs, _ = find(tmp_path / "derived")
    assert set(refs) == set(SCANS)


def test_a_file_that_is_named_is_scored_whatever_it_is(dataset: Path) -> None:
    refs, ignored = find(dataset / "sub-01" / "fmap" / "sub-01_phasediff.nii.gz")
    assert len(refs) == 1 and not ignored


def test_outside_of_a_dataset_nothing_is_left_aside(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    (root / "dataset_description.json").unlink()
    (root / "derivatives" / "x" / "dataset_description.json").unlink()
    found = list(discover([str(root)]))
    uris = {item.uri.removeprefix(f"{root}/") for item in found}
    assert uris >= {*SCANS, "sub-01/fmap/sub-01_phasediff.nii.gz", "sourcedata/sub-01/1.dcm"}


def test_a_dataset_below_another_folder_with_a_description_is_still_one(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    write_dataset(tmp_path / "inner")
    refs, _ = find(tmp_path)
    assert set(refs) == {f"inner/{name}" for name in SCANS}
