"""The page a person opens in the morning: studies, most anomalous first, and what failed.

One self-contained file. It works from a disk and from any static server; the overlay pictures are
the only things it loads, by relative links. Rows are what `scores.parquet`, `studies.csv`,
`failures.csv` and `run.json` hold.

What a page shows can be seen over a shoulder and forwarded by mail, so a medical scan appears by
its label and never by its path.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from io_adapters.overlay import heat_colour
from io_adapters.report.charts import (
    Scale,
    SliceBars,
    histogram_path,
    is_number,
    slice_bars,
)
from io_adapters.scan import Failure

Row: TypeAlias = Mapping[str, Any]

MAX_STUDIES = 500
MAX_SCANS_PER_STUDY = 12
MAX_FAILURES = 500
ABSENT = "–"
HIDDEN = "see run.json"

KIND_NAMES = {"dicom": "DICOM", "nifti": "NIfTI", "image": "image"}
STAGE_NAMES = {
    "discover": "finding it",
    "read": "reading it",
    "score": "scoring it",
    "write": "writing its result",
    "send": "sending its results",
}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanView:
    """A scan as its card shows it."""

    label: str
    score: float | None
    facts: list[tuple[str, str]]
    flags: list[str]
    flagged: bool
    bars: SliceBars | None
    """None for a scan of one slice, and where no slice has a score."""
    n_slices: int
    top_slice: int | None
    overlay: str | None
    """Links, relative to the page."""
    map: str | None
    record: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyView:
    """A study as its card shows it."""

    rank: int
    label: str
    score: float | None
    place: float | None
    """Where its score lies between the lowest and the highest of the run, 0…1."""
    kinds: list[str]
    classes: list[str]
    search_text: str
    n_scans: int
    scans: list[ScanView]
    """The worst `MAX_SCANS_PER_STUDY` of them, worst first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureView:
    """A row of the table of failures."""

    file: str
    stage: str
    reason: str
    error_class: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """What a report is of; what only the first studies need is there only for them."""

    kinds: Mapping[str, int]
    """How many scans there are of each kind."""
    medical: bool
    """Whether any scan is."""
    study_scores: np.ndarray
    """float64 (studies,), NaN for a study without; in any order."""
    studies: Sequence[Row]
    """study_id, label, score, n_scans, kinds, worst_scan; the first `MAX_STUDIES`, worst first."""
    scans: Sequence[Row]
    """Of these studies, in any order: scan_id, study_id, label, kind, domain, class_name, uri,
    modality, n_slices, n_scored, score, top_slice, slice_scores, shape, spacing_mm, flags, map,
    overlay, p_value, flagged. `map` and `overlay` are paths below OUT. Slices count from 0."""
    failures: Sequence[Failure]
    """The first `MAX_FAILURES`, in the order of `failures.csv`."""
    n_failures: int

    @property
    def n_scans(self) -> int:
        """How many scans there are in all."""
        return sum(self.kinds.values())


def render_report(run: Row, ranking: Ranking, *, output: str, tables: str) -> str:
    """Return a report as one HTML page.

    Args:
        run: What `run.json` holds: model, settings, versions, counts, started, finished, seconds,
            slices_per_second. `settings["input"]` is what was scanned (one URI or several);
            `settings["keep_ids"]` says that names of files may be shown.
        ranking: What it is of.
        output: Relative link from the page to OUT, ending in a slash.
        tables: The same to the folder of `studies.csv`, `failures.csv` and `run.json`.
    """
    open_paths = _may_show_paths(run, ranking)
    scale = Scale.of(ranking.study_scores)
    views = _study_views(ranking, scale, output)
    return _template().render(
        run=run,
        note=run["model"].get("note"),
        source=_setting(run["settings"]["input"]) if open_paths else None,
        kind_counts=[
            (KIND_NAMES[kind], count) for kind, count in Counter(ranking.kinds).most_common()
        ],
        kinds=sorted({kind for view in views for kind in view.kinds}),
        classes=sorted({name for view in views for name in view.classes}),
        studies=views,
        n_studies=len(ranking.study_scores),
        n_scans=ranking.n_scans,
        scale=scale,
        histogram=histogram_path(ranking.study_scores, scale),
        failures=[
            _failure_view(number, failure, open_paths=open_paths, keep_ids=_keep_ids(run))
            for number, failure in enumerate(ranking.failures, start=1)
        ],
        n_failures=ranking.n_failures,
        ramp=_ramp_css(),
        provenance=_provenance(run, open_paths=open_paths),
        tables=tables,
    )


def format_number(value: float | None) -> str:
    """Return a measured number with four significant digits, "–" for one that is not there."""
    if not is_number(value):
        return ABSENT
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:#.4g}"


def format_count(value: int | None) -> str:
    """Return a count with separated thousands, "–" for one that is not there."""
    return ABSENT if value is None else f"{value:,}"


def format_seconds(value: float | None) -> str:
    """Return a duration in the two units a person would say it in."""
    if not is_number(value):
        return ABSENT
    if value < 60:
        return f"{value:.3g} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def format_time(value: str | None) -> str:
    """Return an ISO 8601 time to the minute, with its zone where it has one."""
    if not value:
        return ABSENT
    return datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M %Z").strip()


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name fails a test instead of leaving a hole
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": format_number,
        "count": format_count,
        "seconds": format_seconds,
        "time": format_time,
    }
    return environment.get_template("index.html")


def _worst_first(row: Row) -> tuple[bool, float, str]:
    """Return a sort key: highest score first, no score last, then by label."""
    score = row["score"]
    return (False, -score, row["label"]) if is_number(score) else (True, 0.0, row["label"])


def _keep_ids(run: Row) -> bool:
    return bool(run["settings"].get("keep_ids"))


def _may_show_paths(run: Row, ranking: Ranking) -> bool:
    """Say whether paths are harmless: nothing medical was seen, or the user asked for names.

    A run in which nothing could be read tells nothing about its input, so it shows no paths.
    """
    return _keep_ids(run) or (ranking.n_scans > 0 and not ranking.medical)


def _study_views(ranking: Ranking, scale: Scale, output: str) -> list[StudyView]:
    by_study: dict[str, list[Row]] = {study["study_id"]: [] for study in ranking.studies}
    for scan in sorted(ranking.scans, key=_worst_first):
        by_study[scan["study_id"]].append(scan)
    slice_scale = Scale.of(score for scan in ranking.scans for score in scan["slice_scores"])
    return [
        _study_view(
            rank,
            study,
            by_study[study["study_id"]],
            place=scale.place(study["score"]) if is_number(study["score"]) else None,
            views=[
                _scan_view(scan, slice_scale, output)
                for scan in by_study[study["study_id"]][:MAX_SCANS_PER_STUDY]
            ],
        )
        for rank, study in enumerate(ranking.studies, start=1)
    ]


def _study_view(
    rank: int, study: Row, scans: Sequence[Row], *, place: float | None, views: list[ScanView]
) -> StudyView:
    classes = sorted({scan["class_name"] for scan in scans if scan["class_name"]})
    words = [study["label"], *study["kinds"], *classes]
    for scan in scans:
        words += [scan["label"], scan["modality"] or "", *map(_plain, scan["flags"])]
    return StudyView(
        rank=rank,
        label=study["label"],
        score=study["score"],
        place=place,
        kinds=list(study["kinds"]),
        classes=classes,
        search_text=" ".join(dict.fromkeys(words)).lower(),
        n_scans=study["n_scans"],
        scans=views,
    )


def _scan_view(scan: Row, slice_scale: Scale, output: str) -> ScanView:
    scores, folder = scan["slice_scores"], posixpath.dirname(scan["map"] or "")
    drawn = scan["n_slices"] > 1 and any(is_number(score) for score in scores)
    return ScanView(
        label=scan["label"],
        score=scan["score"],
        facts=_facts(scan),
        flags=[_plain(flag) for flag in scan["flags"]],
        flagged=bool(scan["flagged"]),
        bars=slice_bars(scores, scan["top_slice"], slice_scale) if drawn else None,
        n_slices=scan["n_slices"],
        top_slice=scan["top_slice"],
        overlay=_link(output, scan["overlay"]),
        map=_link(output, scan["map"]),
        record=_link(output, folder and f"{folder}/scan.json"),
    )


def _facts(scan: Row) -> list[tuple[str, str]]:
    """Return what is known about a scan, as term and text; what is not known is left out."""
    slices = format_count(scan["n_slices"])
    if scan["n_scored"] != scan["n_slices"]:
        slices = f"{format_count(scan['n_scored'])} of {slices} scored"
    spacing = scan["spacing_mm"]
    facts = [
        ("Class", scan["class_name"]),
        ("Kind", KIND_NAMES[scan["kind"]]),
        ("Modality", scan["modality"]),
        ("Shape", " × ".join(str(size) for size in scan["shape"])),
        ("Spacing", " × ".join(f"{size:.3g}" for size in spacing) + " mm" if spacing else None),
        ("Slices", slices if scan["n_slices"] > 1 else None),
        ("p-value", format_number(scan["p_value"]) if is_number(scan["p_value"]) else None),
        ("File", scan["uri"] if scan["domain"] == "industrial" else None),
    ]
    return [(term, text) for term, text in facts if text]


def _failure_view(
    number: int, failure: Failure, *, open_paths: bool, keep_ids: bool
) -> FailureView:
    uri = failure.uri
    name = posixpath.basename(uri.rstrip("/"))
    if keep_ids:
        file = name
    elif open_paths and posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES:
        file = uri
    else:
        file = failure.scan_id or f"failures.csv, row {number}"
    return FailureView(
        file=file,
        stage=STAGE_NAMES[failure.stage],
        reason=failure.message,
        error_class=failure.error_class,
    )


def _provenance(run: Row, *, open_paths: bool) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return how the run was made: a heading and its rows, for model, settings and versions."""
    groups = []
    for heading in ("model", "settings", "versions"):
        rows = [(name, _setting(value)) for name, value in run[heading].items()]
        if heading == "settings" and not open_paths:
            rows = [(name, HIDDEN if _is_place(name, text) else text) for name, text in rows]
        groups.append((heading.capitalize(), rows))
    return groups


def _setting(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return ABSENT if value is None else str(value)


def _is_place(name: str, text: str) -> bool:
    """Say whether a setting is a path, which may be made of names of people."""
    return name in ("input", "output") or "/" in text or "\\" in text


def _plain(flag: str) -> str:
    return flag.replace("_", " ")


def _link(output: str, path: str | None) -> str | None:
    """Return the link from the page to a file below OUT."""
    return f"{output}{quote(path)}" if path else None


def _ramp_css() -> str:
    """Return the heat scale as a CSS gradient, in the colours that paint the overlays."""
    units = np.linspace(0.0, 1.0, 13)
    stops = [
        f"rgba({red:.0f},{green:.0f},{blue:.0f},{alpha:.2f}) {unit:.0%}"
        for unit, (red, green, blue), alpha in zip(units, *heat_colour(units), strict=True)
    ]
    return f"linear-gradient(to right,{','.join(stops)})"
