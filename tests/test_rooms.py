"""The rooms' direction: zsad and io_adapters know nothing of each other nor of Ray."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "zsad": {"ray", "io_adapters", "jobs", "pydicom", "nibabel", "tifffile", "fsspec", "s3fs"},
    "io_adapters": {"ray", "torch", "open_clip", "zsad", "jobs"},
}


def imported_by(path: Path) -> set[str]:
    """Return the top-level packages that a module imports, anywhere in its text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
    return {name.split(".")[0] for name in found}


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_room_imports_nothing_against_its_direction(room: str) -> None:
    modules = sorted((ROOT / room).rglob("*.py"))
    assert modules
    against = {str(m.relative_to(ROOT)): imported_by(m) & FORBIDDEN[room] for m in modules}
    assert {module: names for module, names in against.items() if names} == {}


def test_only_jobs_import_ray() -> None:
    outside = [m for m in ROOT.glob("*/**/*.py") if m.parts[len(ROOT.parts)] in ("demo", "zsad")]
    assert outside
    assert [m for m in outside if "ray" in imported_by(m)] == []
