"""What a run will do: the scans of an archive, and what each result will depend on."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from io_adapters import dicomweb_uri, results, storage
from io_adapters.discover import Discovery
from io_adapters.naming import Naming
from io_adapters.scan import Failure, Kind, ScanRef
from jobs.config import DEFAULT_CLASS, ScoreConfig
from jobs.derivatives import check_derivatives
from jobs.progress import EVERY_S
from jobs.settings import ConfigError
from zsad.backbone import is_file
from zsad.checkpoints import Checkpoint, digest_of
from zsad.detectors import Domain

Meta = dict[str, Any]
"""class_name, domain, plane, window, crop and fingerprint of a scan's result."""


@dataclass(kw_only=True, slots=True)
class Plan:
    """The scans found, what is known of each, and what was found unusable."""

    settings: dict[str, Any]
    """What all scores of the run depend on."""
    scans: list[tuple[ScanRef, Meta]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    """Files beside the scans (notes, tables, masks' lists), counted by suffix."""

    def lines(self) -> list[str]:
        """Describe the plan, without a name from the archive."""
        size = sum(file.size for ref, _ in self.scans for file in ref.files)
        counts = {
            "kind": Counter(ref.kind.value for ref, _ in self.scans),
            "class": Counter(meta["class_name"] for _, meta in self.scans),
            "ignored": self.ignored,
            "unusable": Counter(failure.message for failure in self.failures),
        }
        unknown = any(file.size == 0 for ref, _ in self.scans for file in ref.files)
        more = " and what a PACS will send" if unknown else ""
        return [f"{len(self.scans)} scans, {size / 1e6:.1f} MB{more}"] + [
            f"  {title} {name}: {count}"
            for title, counter in counts.items()
            for name, count in counter.most_common()
        ]


def make_plan(config: ScoreConfig, model: Checkpoint) -> Plan:
    """List an archive.

    Raises:
        ConfigError: an input or the table of class names is not there, or BIDS derivatives are
            asked for and cannot be made.
    """
    plan = Plan(settings=run_settings(config, model))
    class_of = class_names(config)
    naming = Naming(
        keep_ids=config.keep_ids,
        medical_images=config.domain_of(Kind.IMAGE) is Domain.MEDICAL,
        class_from_folder=config.class_from == "folder",
    )
    found = Discovery(config.input, naming)
    shown = time.monotonic()
    for item in found:
        if time.monotonic() - shown > EVERY_S:
            shown = time.monotonic()
            print(f"listing: {len(plan.scans)} scans so far", flush=True)
        if isinstance(item, Failure):
            plan.failures.append(item)
            continue
        domain = config.domain_of(item.kind)
        meta: Meta = {
            "class_name": class_of(item) or DEFAULT_CLASS[domain],
            "domain": domain.value,
            "plane": config.plane.value,
            "window": config.window,
            "crop": config.crop.value,
        }
        meta["fingerprint"] = results.fingerprint(item, {**plan.settings, **meta})
        plan.scans.append((item, meta))
        if len(plan.scans) == config.limit:
            break
    plan.ignored = found.ignored
    if not plan.scans and not plan.failures:
        print(f"nothing to score in {', '.join(map(dicomweb_uri.shown, config.input))}", flush=True)
    if config.bids_output:
        check_derivatives(config, (ref for ref, _ in plan.scans))
    return plan


def run_settings(config: ScoreConfig, model: Checkpoint) -> dict[str, Any]:
    """Return the settings that change results: those of others are never mixed with these."""
    clip = config.clip
    return {
        "model": model.digest,
        "clip": digest_of([Path(clip)]) if clip and is_file(clip) else clip,
        "precision": config.precision,
        "plane": config.plane.value,
        "window": config.window,
        "crop": config.crop.value,
        "dicom_output": [output.value for output in config.dicom_output],
        "domain": config.domain,
        "class_name": config.class_name,
        "class_from": config.class_from,
    }


def class_names(config: ScoreConfig) -> Callable[[ScanRef], str | None]:
    """Return what finds the class name of a scan; None where nobody says it."""
    if config.class_from in (None, "folder"):
        return lambda ref: config.class_name or ref.class_name
    try:
        text = storage.read_bytes(str(config.class_from)).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--class-from {config.class_from}: {type(error).__name__}") from error
    table = csv.DictReader(io.StringIO(text))
    if not {"path", "class_name"} <= set(table.fieldnames or ()):
        raise ConfigError(f"--class-from {config.class_from}: needs columns path, class_name")
    by_path = {row["path"].strip("/"): row["class_name"] for row in table}

    def look_up(ref: ScanRef) -> str | None:
        parts = ref.uri.split("/")  # a table may name a file by any tail of its path
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((by_path[tail] for tail in tails if tail in by_path), None)

    return look_up
