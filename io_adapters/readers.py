"""The one way in: a scan ref becomes a scan, or a `ScanError` says why not."""

from __future__ import annotations

from collections.abc import Callable

from io_adapters.dicom import read_dicom
from io_adapters.image import read_image
from io_adapters.nifti import read_nifti
from io_adapters.parsers import guarded
from io_adapters.scan import Kind, Plane, Scan, ScanRef, UnreadableError

READERS: dict[Kind, Callable[[ScanRef, Plane], Scan]] = {
    Kind.DICOM: read_dicom,
    Kind.NIFTI: read_nifti,
    Kind.IMAGE: lambda ref, _: read_image(ref),
}


def read_scan(ref: ScanRef, plane: Plane = Plane.ACQUIRED) -> Scan:
    """Read a scan of any kind.

    Args:
        ref: Where it is; discovery makes these.
        plane: Which planes of a volume become slices.

    Raises:
        UnreadableError: the bytes are broken, or storage does not deliver them.
        UnsupportedError: the content is valid and not handled.
    """
    with guarded("the scan"):
        try:
            return READERS[ref.kind](ref, plane)
        except OSError as error:
            raise UnreadableError(
                f"storage did not deliver the scan ({type(error).__name__})"
            ) from None
