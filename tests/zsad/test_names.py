"""The names that people choose from."""

from __future__ import annotations

from zsad.detectors import DETECTORS
from zsad.names import METHODS


def test_the_names_of_methods_are_those_of_the_detectors() -> None:
    assert set(METHODS) == set(DETECTORS)
