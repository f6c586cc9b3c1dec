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
from io_adapters.catalogue import CATALOGUE, Catalogue
from io_adapters.discover import Discovery
from io_adapters.naming import Naming
from io_adapters.scan import Failure, Kind, ScanRef
from jobs.config import DEFAULT_CLASS, ScoreConfig
from jobs.derivatives import check_derivatives, has_derivatives
from jobs.ledger import Ledger, Meta
from jobs.progress import EVERY_S
from jobs.settings import ConfigError
from zsad.backbone import is_file
from zsad.checkpoints import Checkpoint, digest_of
from zsad.detectors import Domain


@dataclass(kw_only=True, slots=True)
class Plan:
    """What was found, counted; the scans themselves and what is unusable are in the ledger."""

    settings: dict[str, Any]
    """What all scores of the run depend on."""
    size: int = 0
    """Bytes, as far as they are known before reading."""
    sizes_known: bool = True
    kinds: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    unusable: Counter[str] = field(default_factory=Counter)
    """Why inputs are."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Files beside the scans (notes, tables, masks' lists), counted by suffix."""
    left_out: int = 0
    """Scans and unusable inputs that are older than `--since`."""

    @property
    def n_scans(self) -> int:
        """How many scans there are, scored before or not."""
        return self.kinds.total()

    def lines(self) -> list[str]:
        """Describe the plan, without a name from the archive."""
        counts = {
            "kind": self.kinds,
            "class": self.classes,
            "ignored": self.ignored,
            "unusable": self.unusable,
        }
        more = "" if self.sizes_known else " and what a PACS will send"
        older = f", and {self.left_out} older ones left out" if self.left_out else ""
        return [f"{self.n_scans} scans, {self.size / 1e6:.1f} MB{more}{older}"] + [
            f"  {title} {name}: {count}"
            for title, counter in counts.items()
            for name, count in counter.most_common()
        ]


def make_plan(config: ScoreConfig, settings: dict[str, Any], ledger: Ledger) -> Plan:
    """List an archive into a ledger, and tell how far it is.

    Args:
        config: of the run.
        settings: what `run_settings` returns for it.
        ledger: knows the results of earlier runs; gets the scans and the unusable inputs.

    Raises:
        ConfigError: an input or the table of class names is not there, or BIDS derivatives are
            asked for and cannot be made.
    """
    plan = Plan(settings=settings)
    naming = Naming(
        keep_ids=config.keep_ids,
        medical_images=config.domain_of(Kind.IMAGE) is Domain.MEDICAL,
        class_from_folder=config.class_from == "folder",
    )
    with Catalogue.open(storage.join(config.output, CATALOGUE)) as catalogue:
        since = config.since.timestamp() if config.since else None
        found = Discovery(config.input, naming, catalogue=catalogue, since=since)
        uris = _take_in(found, plan, config, ledger)
        if not config.dry_run:
            catalogue.save()
    plan.ignored, plan.left_out = found.ignored, found.left_out
    if not plan.kinds and not plan.unusable:
        print(f"nothing to score in {', '.join(map(dicomweb_uri.shown, config.input))}", flush=True)
    if config.bids_output:
        check_derivatives(config, uris)
    return plan


def _take_in(found: Discovery, plan: Plan, config: ScoreConfig, ledger: Ledger) -> list[str]:
    """Put what is found into plan and ledger; return the URIs that BIDS has derivatives for."""
    class_of = class_names(config)
    derived: list[str] = []
    shown = time.monotonic()
    for item in found:
        if time.monotonic() - shown > EVERY_S:
            shown = time.monotonic()
            print(f"listing: {plan.n_scans} scans so far", flush=True)
        if isinstance(item, Failure):
            plan.unusable[item.message] += 1
            ledger.fail(item)
            continue
        _add(plan, ledger, item, _meta_of(config, item, class_of(item)))
        if config.bids_output and has_derivatives(item.uri):
            derived.append(item.uri)
        if plan.n_scans == config.limit:
            break
    return derived


def _meta_of(config: ScoreConfig, ref: ScanRef, class_name: str | None) -> Meta:
    domain = config.domain_of(ref.kind)
    return {
        "class_name": class_name or DEFAULT_CLASS[domain],
        "domain": domain.value,
        "plane": config.plane.value,
        "window": config.window,
        "crop": config.crop.value,
    }


def _add(plan: Plan, ledger: Ledger, ref: ScanRef, meta: Meta) -> None:
    meta["fingerprint"] = results.fingerprint(ref, {**plan.settings, **meta})
    ledger.plan(ref, meta)
    plan.kinds[ref.kind.value] += 1
    plan.classes[meta["class_name"]] += 1
    plan.size += sum(file.size for file in ref.files)
    plan.sizes_known = plan.sizes_known and all(file.size for file in ref.files)


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
