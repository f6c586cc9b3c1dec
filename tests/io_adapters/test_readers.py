"""The one way in: whatever goes wrong inside, a ScanError in our own words comes out."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from dicom_files import ref_of

from io_adapters import readers
from io_adapters.prefetch import map_ordered
from io_adapters.readers import READERS, read_scan
from io_adapters.scan import Kind, Plane, Scan, ScanRef, UnreadableError, UnsupportedError


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(KeyError("ZEBRA"), UnreadableError), (RecursionError("ZEBRA"), UnreadableError),
     (TimeoutError("ZEBRA"), UnreadableError), (MemoryError("ZEBRA"), UnsupportedError)],
)  # fmt: skip
def test_unexpected_errors_become_scan_errors_without_their_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type
) -> None:
    def explode(ref: ScanRef, plane: Plane) -> Scan:
        raise raised

    (tmp_path / "a").touch()
    monkeypatch.setitem(readers.READERS, Kind.IMAGE, explode)
    with pytest.raises(expected) as caught:
        read_scan(ref_of(Kind.IMAGE, tmp_path / "a"))
    assert "ZEBRA" not in str(caught.value) and caught.value.__suppress_context__


def test_every_kind_has_a_reader() -> None:
    assert set(READERS) == set(Kind)


def test_results_keep_the_order_of_the_items() -> None:
    def slow_at_first(n: int) -> int:
        time.sleep(0.02 if n == 0 else 0)
        return n * n

    assert list(map_ordered(slow_at_first, range(50), ahead=8)) == [n * n for n in range(50)]


def test_no_more_than_the_allowed_items_are_in_flight() -> None:
    taken = []
    lazy = map_ordered(lambda n: n, (taken.append(n) or n for n in range(100)), ahead=8)
    assert next(lazy) == 0 and len(taken) == 8


def test_an_error_comes_when_its_turn_comes() -> None:
    results = map_ordered(lambda n: 1 // (3 - n), range(6))
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
