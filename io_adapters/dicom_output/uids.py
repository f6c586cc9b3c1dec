"""UIDs of results."""

from __future__ import annotations

import uuid


def derived_uid(*parts: str) -> str:
    """Return a UID that is always the same for the same texts, and of nothing else."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(parts)).int}"
