"""The ledger of a run: states of scans, order of results, failures of several nights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_results import make_record

from io_adapters.scan import Failure, FileRef, Kind, ScanRef, Stage
from jobs import ledger as ledger_module
from jobs.ledger import Ledger, State

RESULTS = (State.EARLIER, State.KEPT, State.SCORED)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger.open() as opened:
        yield opened


def ref(name: str) -> ScanRef:
    file = FileRef(uri=f"/in/{name}", size=1, version="1")
    return ScanRef(
        kind=Kind.IMAGE, uri=file.uri, files=(file,), scan_id=name, study_id=name, label=name
    )


def failure(name: str, stage: Stage = Stage.READ, scan_id: str | None = None) -> Failure:
    return Failure(uri=f"/in/{name}", stage=stage, error_class="E", message="m", scan_id=scan_id)


def ids(ledger: Ledger, *states: State) -> list[str]:
    return [record["scan_id"] for record in ledger.ranked(*states)]


def test_only_what_is_new_or_changed_is_to_be_scored(ledger: Ledger) -> None:
    ledger.remember([make_record(name, 0.5) for name in ("same", "changed", "absent")], [])
    assert not ledger.plan(ref("same"), {"fingerprint": "f"})
    assert ledger.plan(ref("changed"), {"fingerprint": "g"})
    assert ledger.plan(ref("new"), {"fingerprint": "f"})
    assert [r.scan_id for r, _ in ledger.todo()] == ["changed", "new"]
    assert ids(ledger, State.KEPT) == ["same"]
    assert ids(ledger, State.EARLIER) == ["absent"]


def test_a_scan_met_twice_is_scored_once(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.plan(ref("a"), {"fingerprint": "f"})
    assert ledger.count(State.TODO) == 1


def test_what_is_to_be_scored_survives_as_it_went_in(ledger: Ledger) -> None:
    meta = {"fingerprint": "f", "class_name": "metal nut", "window": [0, 1.5]}
    ledger.plan(ref("a"), meta)
    assert list(ledger.todo()) == [(ref("a"), meta)]


def test_results_may_come_in_while_the_rest_is_read(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_AT_ONCE", 2)
    names = [str(number) for number in range(7)]
    for name in names:
        ledger.plan(ref(name), {"fingerprint": "f"})
    read = []
    for scan, _ in ledger.todo():
        read.append(scan.scan_id)
        ledger.commit(make_record(scan.scan_id, 0.5))
    assert read == names
    assert ledger.count(State.SCORED) == len(names)
    assert list(ledger.todo()) == []


def test_a_changed_scan_that_fails_leaves_its_earlier_result_to_be_removed(ledger: Ledger) -> None:
    ledger.remember([make_record("a", 0.5)], [])
    ledger.plan(ref("a"), {"fingerprint": "g"})
    ledger.fail(failure("a", scan_id="a"))
    assert [record["scan_id"] for record in ledger.records(State.FAILED)] == ["a"]
    assert ids(ledger, *RESULTS) == []


def test_a_result_that_could_not_be_sent_stays_a_result(ledger: Ledger) -> None:
    ledger.commit(make_record("a", 0.5))
    ledger.fail(failure("a", Stage.SEND, scan_id="a"))
    assert ids(ledger, *RESULTS) == ["a"]
    assert ledger.count_failures(of_this_run=True, sending=True) == 1
    assert ledger.count_failures(of_this_run=True, sending=False) == 0


def test_earlier_failures_go_when_they_were_tried_again_or_are_settled(ledger: Ledger) -> None:
    earlier = [
        failure("scored now", scan_id="a"),
        failure("still broken"),
        failure("deleted"),
        failure("of another night"),
        failure("unsent", Stage.SEND, scan_id="x"),
    ]
    ledger.remember([], earlier)
    ledger.plan(ref("a"), {"fingerprint": "f"})
    ledger.commit(make_record("a", 0.5))
    ledger.fail(failure("still broken"))
    ledger.drop_earlier_failures(lambda uri: uri == "/in/deleted")
    names = [found.uri for found in ledger.failures(of_this_run=False)]
    assert names == ["/in/of another night", "/in/still broken"]
    assert list(ledger.failures(of_this_run=True)) == [failure("still broken")]


def test_a_study_scores_as_its_worst_scan_and_missing_scores_come_last(ledger: Ledger) -> None:
    for record in (
        make_record("low", 0.1, "s1"),
        make_record("none", None),
        make_record("high", 0.9, "s1"),
        make_record("middle", 0.5),
    ):
        ledger.commit(record)
    studies = list(ledger.studies(State.SCORED))
    assert [study["score"] for study in studies] == [0.9, 0.5, None]
    assert studies[0] == {
        "study_id": "s1", "label": "s1", "score": 0.9, "n_scans": 2, "kinds": ["image"],
        "worst_scan": "high",
    }  # fmt: skip
    assert studies[1]["label"] == "middle"


SCORES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4), st.one_of(st.none(), st.floats(-9, 9)), max_size=12
)


@given(SCORES)
def test_results_are_ranked_as_python_ranks_them(scores: dict[str, float | None]) -> None:
    with Ledger.open() as ledger:
        for name, score in scores.items():
            ledger.commit(make_record(name, score))
        expected = sorted(scores, key=lambda n: (scores[n] is None, -(scores[n] or 0.0), n))
        assert ids(ledger, State.SCORED) == expected
        assert [study["study_id"] for study in ledger.studies(State.SCORED)] == expected


def test_a_report_gets_the_first_studies_and_the_numbers_of_all(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_STUDIES", 1)
    ledger.remember([make_record("old", 0.9)], [failure("earlier")])
    ledger.commit(make_record("low", 0.1))
    ledger.commit(make_record("none", None) | {"domain": "medical", "kind": "dicom"})
    ranking = ledger.ranking(*RESULTS, of_this_run=False)
    assert ranking.kinds == {"dicom": 1, "image": 2}
    assert ranking.medical
    assert len(ranking.study_scores) == 3
    assert [study["study_id"] for study in ranking.studies] == ["old"]
    assert [scan["scan_id"] for scan in ranking.scans] == ["old"]
    assert ranking.n_failures == 1
    assert ledger.ranking(State.SCORED, of_this_run=True).n_failures == 0


def test_an_empty_ledger_has_an_empty_ranking(ledger: Ledger) -> None:
    ranking = ledger.ranking(*RESULTS, of_this_run=False)
    assert (ranking.n_scans, len(ranking.study_scores), list(ranking.studies)) == (0, 0, [])


def test_nothing_is_left_on_the_disk(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Ledger.open() as ledger:
        ledger.plan(ref("a"), {"fingerprint": "f"})
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
