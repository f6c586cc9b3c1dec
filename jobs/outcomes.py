"""What becomes of a scan, as a JSON string that travels between stages.

It is {"record": …} for a result, {"failure": …} for a scan that has none, or {"suspect": …} for one
whose process ended without a word: it is tried again alone, see `jobs.suspects`.
"""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

from io_adapters.scan import Failure, ScanError, ScanRef, Stage


def failure_json(ref: ScanRef, stage: Stage, error: Exception) -> str:
    """Return the outcome of a scan that failed.

    Only our own messages are passed on: a library's may quote the file. Of any other error the
    place is told, which is what a bug report needs.
    """
    message = str(error)
    if not isinstance(error, ScanError):
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = f"unexpected, at {Path(place.filename).name}:{place.lineno}; please report it"
    return json.dumps(
        {
            "failure": {
                "uri": ref.uri,
                "stage": stage.value,
                "error_class": type(error).__name__,
                "message": message,
                "scan_id": ref.scan_id,
            }
        }
    )


def failure_from(fields: dict[str, Any]) -> Failure:
    """Rebuild the failure of an outcome."""
    return Failure(**fields | {"stage": Stage(fields["stage"])})


def suspect_json(ref: str, meta: str) -> str:
    """Return the outcome of a scan, given as in its row, that is to be tried again alone."""
    return json.dumps({"suspect": {"ref": ref, "meta": meta}})
