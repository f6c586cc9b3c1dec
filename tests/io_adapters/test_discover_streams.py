"""Discovery of any listing: its order changes no scan, and its length takes no memory."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from io_adapters import discover as discover_module
from io_adapters import storage
from io_adapters.catalogue import Catalogue
from io_adapters.dicom_header import Header, Role
from io_adapters.discover import Discovery
from io_adapters.finding import Finding
from io_adapters.naming import Naming
from io_adapters.scan import FileRef, Kind, ScanRef

MB = 2**20
N_FILES = 50_000

headers = st.builds(
    Header,
    study=st.sampled_from(["", "a", "b"]),
    series=st.sampled_from(["", "1", "2"]),
    instance=st.sampled_from(["", "x"]),
    modality=st.sampled_from([None, "CT", "DX"]),
    series_number=st.sampled_from([None, 4]),
    role=st.sampled_from(Role),
    layout=st.sampled_from(["l", "m"]),
    grid=st.tuples(
        st.sampled_from([(), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1.0, 0.009, 0.0, 0.0, 1.0, 0.0),
                         (1.0, 0.018, 0.0, 0.0, 1.0, 0.0)]),
        st.sampled_from([(), (0.5, 0.5)]),
    ),
)  # fmt: skip
findings = st.one_of(
    st.builds(Finding, kind=st.just(Kind.DICOM), header=headers),
    st.sampled_from([
        Finding(kind=Kind.IMAGE), Finding(ignored=".txt"),
        Finding(error="UnreadableError", message="broken"),
    ]),
)  # fmt: skip
names = st.lists(st.sampled_from("abc"), max_size=3).map(
    lambda parts: "/".join(["/in", *parts, "f"])
)
listings = st.dictionaries(
    names | st.just("/in/\udcff"), findings, min_size=1, max_size=12
).flatmap(lambda found: st.tuples(st.just(found), st.permutations(sorted(found))))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(listings, st.booleans(), st.integers(0, 12))
def test_the_order_of_a_listing_changes_no_scan_known_or_not(
    tmp_path: Path, listing: tuple[dict[str, Finding], list[str]], keep_ids: bool, n_known: int
) -> None:
    found, order = listing
    naming = Naming(keep_ids=keep_ids)
    with pytest.MonkeyPatch.context() as patch, Catalogue.open() as catalogue:
        patch.setattr(discover_module, "inspect", lambda file: found[file.uri])
        patch.setattr(storage, "list_files", lambda _: map(file_of, sorted(found)))
        expected = Discovery(["/in"], naming)
        refs = set(expected)
        for uri in order[:n_known]:
            catalogue.add(file_of(uri), found[uri])
        patch.setattr(storage, "list_files", lambda _: map(file_of, order))
        other = Discovery(["/in"], naming, catalogue=catalogue)
        assert set(other) == refs and other.ignored == expected.ignored
        patch.setattr(discover_module, "inspect", None)
        assert set(Discovery(["/in", "/in"], naming, catalogue=catalogue)) == refs
    assert {uri for uri in found if found[uri].header} == {
        file.uri
        for ref in refs
        if isinstance(ref, ScanRef) and ref.kind is Kind.DICOM
        for file in ref.files
    }


def file_of(uri: str) -> FileRef:
    return FileRef(uri=uri, size=1, version="1")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_a_long_listing_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """One file of ten is an image, the others are series of 90; all are known."""
    monkeypatch.setattr(storage, "list_files", lambda _: drawn_files())
    with Catalogue.open() as catalogue:
        for n, file in enumerate(drawn_files()):
            catalogue.add(file, drawn_finding(n))
        gc.collect()
        before = most = resident()
        count = 0
        for n, ref in enumerate(Discovery(["/in"], Naming(), catalogue=catalogue)):
            assert isinstance(ref, ScanRef)
            count += len(ref.files)
            if n % 100 == 0:
                most = max(most, resident())
    assert count == N_FILES
    assert most - before < 30 * MB


@pytest.mark.parametrize(("root", "together"), [("/in", [1]), ("memory:///in", range(9, 33))])
def test_a_network_is_asked_for_many_files_at_once_and_a_disk_for_one(
    root: str, together: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def inspect(_: FileRef) -> Finding:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        time.sleep(0.002)
        with lock:
            now -= 1
        return Finding(kind=Kind.IMAGE)

    files = [file_of(f"{root}/{n:03}") for n in range(200)]
    monkeypatch.setattr(storage, "list_files", lambda _: iter(files))
    monkeypatch.setattr(discover_module, "inspect", inspect)
    refs = list(Discovery([root], Naming()))
    assert [ref.uri for ref in refs] == [file.uri for file in files]
    assert most in together


def drawn_files() -> Iterator[FileRef]:
    path = "/in/a hospital/and one of its departments/{:04}/series/an instance {:06}.dcm"
    return (file_of(path.format(n // 100, n)) for n in range(N_FILES))


def drawn_finding(n: int) -> Finding:
    if n % 10 == 0:
        return Finding(kind=Kind.IMAGE)
    grid = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (0.5, 0.5)
    header = Header(
        study=f"{n // 200:016}", series=f"{n // 100:016}", instance="", modality="CT",
        series_number=1, role=Role.ORIGINAL, layout="0123456789abcdef", grid=grid,
    )  # fmt: skip
    return Finding(kind=Kind.DICOM, header=header)


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
