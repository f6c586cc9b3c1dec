"""Which series can carry more than pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from findings_case import series
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from io_adapters.dicom_geometry import place_frames
from io_adapters.dicom_output.findings import Source
from io_adapters.dicom_output.source import clean_header, find_obstacle, read_sources
from io_adapters.scan import FileRef, Geometry, UnreadableError, UnsupportedError

SIDE = 0.5


def geometry_of(step: tuple[float, float, float], slices: int = 10) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([(SIDE, 0, 0), (0, SIDE, 0), step])
    return Geometry(
        affine=affine, shape=(48, 40, slices), axes=(2, 1, 0), flips=(False, True, False)
    )


SOURCES = [Source(header=header, frame=0) for header in series(10)]


def test_slices_square_to_their_stack_are_a_volume() -> None:
    assert find_obstacle(geometry_of((0, 0, 2)), SOURCES) is None


@given(st.floats(0, 2 * np.pi), st.floats(0.03, 1.0))
def test_a_stack_that_drifts_by_half_a_pixel_is_tilted(direction: float, drift: float) -> None:
    step = (drift * np.cos(direction), drift * np.sin(direction), 2.0)
    assert "tilted" in str(find_obstacle(geometry_of(step), SOURCES))
    almost = tuple(0.0277 / drift * component for component in step[:2])
    assert find_obstacle(geometry_of((*almost, 2.0)), SOURCES) is None


def test_what_is_no_volume_is_named() -> None:
    assert "evenly spaced" in str(find_obstacle(None, SOURCES))
    for geometry in (None, geometry_of((0, 0, 2), slices=1)):
        assert "single slice" in str(find_obstacle(geometry, SOURCES[:1]))


def test_frames_of_several_files_are_no_volume() -> None:
    first, second = series(2)
    mixed = [Source(header=header, frame=n) for header in (first, second) for n in range(5)]
    assert "several files" in str(find_obstacle(geometry_of((0, 0, 2)), mixed))


def test_tiles_of_a_mosaic_are_no_volume() -> None:
    tiles = [Source(header=SOURCES[0].header, frame=0)] * 10
    assert "tiles" in str(find_obstacle(geometry_of((0, 0, 2)), tiles))


def test_several_volumes_are_no_volume() -> None:
    geometry = dataclasses.replace(geometry_of((0, 0, 2), slices=5), volumes=2)
    assert "several volumes" in str(find_obstacle(geometry, SOURCES))


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID", "SeriesInstanceUID"])
def test_what_cannot_be_referred_to_is_refused(keyword: str) -> None:
    dataset: Dataset = series(1)[0]
    setattr(dataset, keyword, "")
    with pytest.raises(UnsupportedError, match="does not name"):
        clean_header(dataset, 2.0)


def test_a_broken_source_is_told_in_our_words(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"Doe^Jane" * 100)
    file = FileRef(uri=str(tmp_path / "a"), size=800, version="1")
    with pytest.raises(UnreadableError) as caught:
        read_sources([(file, 0)], 2.0)
    assert "Jane" not in str(caught.value)


def test_slices_without_a_frame_of_reference_share_one() -> None:
    headers = [clean_header(dataset, 2.0) for dataset in series(3, FrameOfReferenceUID=None)]
    assert len({header.FrameOfReferenceUID for header in headers}) == 1
    assert place_frames(headers[0], 1)[0] is not None
