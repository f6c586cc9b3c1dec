"""What of a DICOM series is one scan: scanners put scouts, other planes and screenshots into it.

A series is split by what its files say of themselves. The main volume keeps the name of the series
when a scout or a screenshot joins it, so that what was scored stays scored.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from io_adapters.dicom_header import PROJECTIONS, Header

_SAME_ORIENTATION = 1e-2
"""Of a unit vector's components, about half a degree: what is left open here, reading decides."""
_SAME_SPACING = 1e-2
"""Of the distance between pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartName:
    """What is added to the name of a series to name one part of it."""

    identity: tuple[str, ...]
    """What tells it from the other parts: nothing for the only original one."""
    words: tuple[str, ...]
    """The same for a person."""


def same_scan(one: Header, other: Header) -> bool:
    """Tell whether two files of a series are slices of one volume, as far as their headers tell.

    Of modalities whose files are pictures of their own, one picture is one scan.
    """
    if one.modality in PROJECTIONS:
        return True
    (turned, spaced), (other_turned, other_spaced) = one.grid, other.grid
    return (
        (one.role, one.layout, one.modality) == (other.role, other.layout, other.modality)
        and _close(turned, other_turned, atol=_SAME_ORIENTATION, rtol=0)
        and _close(spaced, other_spaced, atol=0, rtol=_SAME_SPACING)
    )


def name_parts(headers: Sequence[Header]) -> list[PartName]:
    """Name the parts of one series by their first files' headers; no two get the same name.

    Args:
        headers: One for each part, in the order in which they were found.
    """
    roles = Counter(header.role for header in headers)
    seen: Counter[tuple[str, ...]] = Counter()
    numbers: Counter[str] = Counter()
    named = []
    for header in headers:
        words = (str(header.role),) if header.role else ()
        identity = words
        if roles[header.role] > 1:
            numbers[header.role] += 1
            words = (*words, f"part {numbers[header.role]}")
            identity = (*identity, *_details(header))
            seen[identity] += 1
            if seen[identity] > 1:
                identity = (*identity, str(seen[identity]))
        named.append(PartName(identity=identity, words=words))
    return named


def _details(header: Header) -> tuple[str, ...]:
    orientation, spacing = header.grid
    rounded = (f"{round(x, 1) + 0.0:.1f}" for x in orientation)  # + 0.0: no minus zero
    return (header.layout, " ".join(rounded), " ".join(f"{x:.3g}" for x in spacing))


def _close(one: tuple[float, ...], other: tuple[float, ...], *, atol: float, rtol: float) -> bool:
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(
        math.isclose(a, b, abs_tol=atol, rel_tol=rtol) for a, b in pairs
    )
