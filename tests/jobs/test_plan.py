"""What a run will do: class names, limits, settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from io_adapters.scan import ScanRef
from jobs.config import ScoreConfig
from jobs.ledger import Ledger, Meta
from jobs.plan import Plan, make_plan, run_settings
from jobs.settings import ConfigError
from zsad.checkpoints import load_checkpoint


def plan_of(
    archive: Path, checkpoint: Path, **settings: object
) -> tuple[Plan, list[tuple[ScanRef, Meta]]]:
    """Return the plan, and the scans that it puts into an empty ledger."""
    config = ScoreConfig(
        input=(str(archive),), output="/nowhere", checkpoint=str(checkpoint), **settings
    )
    with Ledger.open() as ledger:
        plan = make_plan(config, run_settings(config, load_checkpoint(checkpoint)), ledger)
        return plan, list(ledger.todo())


def classes(archive: Path, checkpoint: Path, **settings: object) -> dict[str, str]:
    _, scans = plan_of(archive, checkpoint, **settings)
    return {Path(ref.uri).name: meta["class_name"] for ref, meta in scans}


def test_class_names_default_by_domain(archive: Path, tiny_checkpoint: Path) -> None:
    found = classes(archive, tiny_checkpoint)
    assert (found["one.png"], found["sub.nii.gz"]) == ("object", "scan")


def test_class_names_come_from_folders(archive: Path, tiny_checkpoint: Path) -> None:
    assert classes(archive, tiny_checkpoint, class_from="folder")["one.png"] == "metal nut"


def test_class_names_come_from_any_tail_of_a_path_in_a_table(
    archive: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    table = tmp_path / "classes.csv"
    table.write_text("path,class_name\nmetal_nut/one.png,nut\nsub.nii.gz,brain\n")
    found = classes(archive, tiny_checkpoint, class_from=str(table))
    assert (found["one.png"], found["sub.nii.gz"]) == ("nut", "brain")
    assert found["two.png"] == "object"


def test_a_table_without_the_columns_is_refused(
    archive: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "classes.csv").write_text("file,name\n")
    with pytest.raises(ConfigError, match="needs columns path, class_name"):
        classes(archive, tiny_checkpoint, class_from=str(tmp_path / "classes.csv"))


def test_limit_stops_the_listing(archive: Path, tiny_checkpoint: Path) -> None:
    plan, scans = plan_of(archive, tiny_checkpoint, limit=2)
    assert plan.n_scans == len(scans) == 2


def test_fingerprints_change_with_the_settings(archive: Path, tiny_checkpoint: Path) -> None:
    usual, other = (
        [meta["fingerprint"] for _, meta in plan_of(archive, tiny_checkpoint, **s)[1]]
        for s in ({}, {"precision": "bf16"})
    )
    assert not set(usual) & set(other)


def test_a_plan_counts_what_it_found(archive: Path, tiny_checkpoint: Path) -> None:
    plan, scans = plan_of(archive, tiny_checkpoint)
    assert plan.kinds == {"image": 2, "nifti": 1, "dicom": 3}
    assert plan.size == sum(file.size for ref, _ in scans for file in ref.files)
    assert plan.unusable.total() == 1
    assert plan.lines()[0].startswith("6 scans, ")
