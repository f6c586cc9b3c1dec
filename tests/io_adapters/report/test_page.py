import math
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from io_adapters.report.page import (
    MAX_STUDIES,
    Ranking,
    format_number,
    format_seconds,
    render_report,
)
from io_adapters.scan import Failure, Stage

Row = dict[str, Any]
VOID = {"meta", "link", "img", "input", "br", "hr"}
PATIENT = "/archive/DOE^JANE/IM0001.dcm"


class Page(HTMLParser):
    """The tags, links and text of a page; fails on a tag that is closed out of order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [found[name] or "" for name in ("href", "src") if name in found]
        self.ids += [found["id"] or ""] if "id" in found else []
        if tag == "img":
            self.images.append(found)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def run_row(**changes: Any) -> Row:
    run: Row = {
        "model": {
            "method": "AA-CLIP",
            "backbone": "ViT-L/14@336px",
            "note": None,
            "digest": "sha256:12ab",
            "heat": [0.125, 0.5],
        },
        "settings": {"input": "/archive/DOE^JANE", "keep_ids": False, "batch_size": 16},
        "versions": {"zsad": "0.1.0"},
        "counts": {"listed": 3, "committed": 2, "resumed": 0, "failed": 1, "ignored": {".txt": 4}},
        "started": "2026-01-02T22:00:00+00:00",
        "finished": "2026-01-02T22:01:30+00:00",
        "seconds": 90.0,
        "slices_per_second": 12.5,
    }
    return run | changes


def scan_row(name: str, score: float | None, **changes: Any) -> Row:
    scan: Row = {
        "scan_id": f"scan-{name}",
        "study_id": f"study-{name}",
        "label": name,
        "kind": "dicom",
        "domain": "medical",
        "class_name": "brain",
        "uri": PATIENT,
        "modality": "MR",
        "n_slices": 4,
        "n_scored": 3,
        "score": score,
        "top_slice": 2,
        "slice_scores": [None, 0.25, 0.5, 0.25],
        "shape": [4, 64, 32],
        "spacing_mm": [5.0, 0.5, 0.5],
        "flags": ["missing_slices_1"],
        "map": f"scans/study-{name}/scan-{name}/map.nii.gz",
        "overlay": f"scans/study-{name}/scan-{name}/overlay.png",
        "p_value": None,
        "flagged": None,
    }
    return scan | changes


def image_row(name: str, score: float, **changes: Any) -> Row:
    image = {
        "kind": "image", "domain": "industrial", "class_name": "screw", "modality": None,
        "uri": "s3://bucket/screw/1.png", "n_slices": 1, "n_scored": 1, "slice_scores": [score],
        "top_slice": 0, "shape": [64, 32], "spacing_mm": None, "flags": [],
    }  # fmt: skip
    return scan_row(name, score, **image | changes)


def study_of(*scans: Row) -> Row:
    scores = [scan["score"] for scan in scans if scan["score"] is not None]
    return {
        "study_id": scans[0]["study_id"],
        "label": scans[0]["label"],
        "score": max(scores, default=None),
        "n_scans": len(scans),
        "kinds": sorted({scan["kind"] for scan in scans}),
        "worst_scan": scans[0]["scan_id"],
    }


def failure(**changes: Any) -> Failure:
    usual = {
        "uri": PATIENT, "stage": Stage.READ, "error_class": "UnreadableError",
        "message": "The file ends early.", "scan_id": None,
    }  # fmt: skip
    return Failure(**usual | changes)


def render(*scans: Row, run: Row | None = None, failures: list[Failure] | None = None) -> str:
    studies = [study_of(scan) for scan in scans]
    return page_of(studies, scans, run=run, failures=failures)


def page_of(
    studies: list[Row],
    scans: Sequence[Row],
    *,
    run: Row | None = None,
    failures: Sequence[Failure] | None = None,
    of_this_run: bool = False,
) -> str:
    ranking = Ranking(
        kinds=Counter(scan["kind"] for scan in scans),
        medical=any(scan["domain"] != "industrial" for scan in scans),
        study_scores=np.array([study["score"] for study in studies], dtype=float),
        studies=studies[:MAX_STUDIES],
        scans=scans[:MAX_STUDIES],
        failures=failures or [],
        n_failures=len(failures or []),
    )
    output, tables = ("../../", "") if of_this_run else ("../", "../")
    return render_report(run or run_row(), ranking, output=output, tables=tables)


def test_tags_are_balanced_and_ids_unique() -> None:
    html = render(scan_row("a", 0.5), image_row("b", 0.2), failures=[failure()])
    page = Page(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))


def test_nothing_is_loaded_but_relative_pictures() -> None:
    html = render(scan_row("a", 0.5))
    assert not re.search(r"https?://|@import|url\(", html)
    links = [link for link in Page(html).links if not link.startswith(("#", "../"))]
    assert links == ["data:,"]


def test_pictures_load_lazily_and_have_a_description() -> None:
    picture = Page(render(scan_row("a", 0.5))).images[0]
    assert picture["src"] == "../scans/study-a/scan-a/overlay.png"
    assert picture["loading"] == "lazy"
    assert picture["alt"]


def test_a_scan_links_to_its_map_and_its_record() -> None:
    links = Page(render(scan_row("a", 0.5))).links
    assert "../scans/study-a/scan-a/map.nii.gz" in links
    assert "../scans/study-a/scan-a/scan.json" in links


def test_links_survive_characters_that_mean_something_in_a_url() -> None:
    links = Page(render(image_row("a", 0.5, overlay="scans/50% #1?/overlay.png"))).links
    assert "../scans/50%25%20%231%3F/overlay.png" in links


def test_a_scan_without_files_has_no_dead_links() -> None:
    page = Page(render(scan_row("a", 0.5, map=None, overlay=None)))
    assert not any("scans/" in link for link in page.links)
    assert "no picture" in page.text


def test_text_from_the_archive_is_escaped() -> None:
    evil = '"><script>alert(1)</script>'
    html = render(
        image_row(evil, 0.5, uri=evil, class_name=evil, modality=evil, flags=[evil]),
        run=run_row(settings={"input": evil}),
        failures=[failure(message=evil, scan_id=evil)],
    )
    assert "<script>alert" not in html
    assert Page(html).open == []


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_missing_score_is_a_dash_and_never_zero(missing: float | None) -> None:
    scan = scan_row("a", missing, slice_scores=[missing] * 4, top_slice=None, n_scored=0)
    html = render(scan)
    assert '<b class="score">–</b>' in html
    assert 'data-score=""' in html
    assert "nan" not in Page(html).text.lower()


def test_scans_of_a_study_are_shown_worst_first() -> None:
    scans = [scan_row(name, score, study_id="s") for name, score in (("mild", 0.2), ("bad", 0.8))]
    html = page_of([study_of(*scans)], scans)
    assert html.index("<span>bad</span>") < html.index("<span>mild</span>")


@pytest.mark.parametrize("keep_ids", [False, True])
def test_the_path_of_a_medical_scan_is_nowhere_in_the_page(keep_ids: bool) -> None:
    settings = {"input": "archive", "keep_ids": keep_ids}
    html = render(scan_row("a", 0.5), image_row("b", 0.2), run=run_row(settings=settings))
    assert "DOE" not in html


def test_a_medical_run_shows_no_path_at_all() -> None:
    html = render(scan_row("a", 0.5), failures=[failure(), failure(scan_id="scan-f")])
    assert "DOE" not in html
    assert "IM0001" not in html
    assert "failures.csv, row 1" in html
    assert "scan-f" in html


@pytest.mark.parametrize(("name", "value"), [("input", "DOE"), ("cache", "/home/DOE")])
def test_a_medical_run_shows_no_setting_that_is_a_place(name: str, value: str) -> None:
    settings = {"input": ["a"], "batch_size": 16} | {name: value}
    text = Page(render(scan_row("a", 0.5), run=run_row(settings=settings))).text
    assert "DOE" not in text
    assert "batch_size" in text


def test_a_run_of_failures_only_shows_no_path_because_nothing_says_what_it_was() -> None:
    assert "DOE" not in render(failures=[failure(uri="/archive/DOE^JANE/1.png")])


def test_a_failed_image_of_an_industrial_run_is_named() -> None:
    failures = [failure(uri="s3://bucket/screw/2.png"), failure()]
    html = render(image_row("a", 0.5), failures=failures)
    assert "s3://bucket/screw/2.png" in html
    assert "IM0001" not in html


def test_an_industrial_run_says_what_was_scanned() -> None:
    run = run_row(settings={"input": ["s3://bucket/screw", "s3://bucket/nut"]})
    assert "<code>s3://bucket/screw, s3://bucket/nut</code>" in render(image_row("a", 0.5), run=run)


def test_keep_ids_names_the_file_but_not_its_folder() -> None:
    run = run_row(settings={"input": "archive", "keep_ids": True})
    html = render(scan_row("a", 0.5), run=run, failures=[failure()])
    assert "IM0001.dcm" in html
    assert "DOE" not in html


def test_failures_are_told_in_words_and_linked_from_the_top() -> None:
    html = render(scan_row("a", 0.5), failures=[failure()])
    page = Page(html)
    assert "#failures" in page.links
    assert "failures" in page.ids
    assert "reading it" in page.text
    assert "The file ends early." in page.text


def test_the_note_of_a_model_comes_before_everything_else() -> None:
    model = run_row()["model"] | {"note": "demonstration model"}
    text = Page(render(scan_row("a", 0.5), run=run_row(model=model))).text
    assert text.index("demonstration model") < text.index("1 study")


def test_every_report_says_that_it_is_no_medical_device() -> None:
    assert "not a medical device" in Page(render()).text


def test_the_legend_shows_the_two_marks_of_the_model() -> None:
    html = render(scan_row("a", 0.5))
    assert "<span>0.1250</span>" in html
    assert "<span>0.5000</span>" in html


def test_an_empty_run_is_a_sound_page() -> None:
    page = Page(render())
    assert page.open == []
    assert "Nothing to rank" in page.text
    assert "every scan that was found has a result" in page.text


def test_a_long_list_is_cut_and_says_where_the_rest_is() -> None:
    scans = [image_row(f"n{number}", number / 1000) for number in range(MAX_STUDIES + 2)]
    html = render(*scans)
    assert html.count("<article") == MAX_STUDIES
    assert "../studies.csv" in html
    assert f"The first {MAX_STUDIES} of {MAX_STUDIES + 2} studies" in html
    assert len(html) < 2_000_000


def test_the_page_of_one_run_links_to_its_own_tables_and_to_the_pictures_of_all() -> None:
    scans = [scan_row("a", 0.5)]
    links = Page(page_of([study_of(*scans)], scans, of_this_run=True)).links
    assert "run.json" in links
    assert "../../scans/study-a/scan-a/overlay.png" in links


def test_slice_bars_are_drawn_for_volumes_only() -> None:
    assert 'class="bars"' in render(scan_row("a", 0.5))
    assert 'class="bars"' not in render(image_row("a", 0.5))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0.0, "0.000"),
        (0.82, "0.8200"),
        (0.0312345, "0.03123"),
        (12.3456, "12.35"),
        (-123456.0, "-123,456"),
    ],
)
def test_numbers_have_four_significant_digits(value: float | None, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (4.25, "4.25 s"), (90, "1 min 30 s"), (59.7, "59.7 s"), (7384, "2 h 3 min")],
)
def test_durations_are_said_as_a_person_would(value: float | None, text: str) -> None:
    assert format_seconds(value) == text
