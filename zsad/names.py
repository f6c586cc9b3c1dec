"""The names by which people choose methods and the like, for those who do not need torch yet.

A command line is checked in half a second with them; torch alone takes longer to import.
"""

from __future__ import annotations

from enum import StrEnum

METHODS = ("aaclip", "adaclip")
"""The keys of `zsad.detectors.DETECTORS`."""
PRECISIONS = ("auto", "fp32", "bf16")
"""Of a model's arithmetic; "auto" is bf16 on a GPU and fp32 on a CPU."""


class Domain(StrEnum):
    """What kind of picture a slice is; methods smooth and score the two differently."""

    INDUSTRIAL = "industrial"
    MEDICAL = "medical"
