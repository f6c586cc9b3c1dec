"""A real PACS for the tests: Orthanc from Debian, on the loopback interface, in its own folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from ports import free_ports

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
needs_orthanc = pytest.mark.skipif(
    shutil.which("Orthanc") is None or not PLUGIN.exists(),
    reason="needs Orthanc: apt-get install orthanc orthanc-dicomweb",
)
START_S = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Orthanc:
    """A PACS that runs."""

    port: int
    auth: tuple[str, str] | None

    @property
    def url(self) -> str:
        """The root of its own REST interface, over HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def uri(self) -> str:
        """Its DICOMweb service, as `--input` takes it."""
        return f"dicomweb+http://127.0.0.1:{self.port}/dicom-web"

    def put(self, *files: bytes) -> None:
        """Store DICOM files past DICOMweb."""
        for content in files:
            answer = requests.post(f"{self.url}/instances", content, auth=self.auth, timeout=10)
            answer.raise_for_status()

    def files(self) -> dict[str, bytes]:
        """Return what is stored, by SOP instance UID, past DICOMweb."""
        instances = self.get("/instances?expand")
        return {
            str(item["MainDicomTags"]["SOPInstanceUID"]): requests.get(
                f"{self.url}/instances/{item['ID']}/file", auth=self.auth, timeout=10
            ).content
            for item in instances
        }

    def delete_study(self, uid: str) -> None:
        """Remove a study."""
        for item in self.get("/studies?expand"):
            if item["MainDicomTags"]["StudyInstanceUID"] == uid:
                answer = requests.delete(f"{self.url}/studies/{item['ID']}", auth=self.auth)
                answer.raise_for_status()

    def get(self, path: str) -> list[dict]:
        """Ask its own REST interface."""
        answer = requests.get(self.url + path, auth=self.auth, timeout=10)
        answer.raise_for_status()
        return list(answer.json())


@contextmanager
def running_orthanc(
    folder: Path, *, user: tuple[str, str] | None = None, **settings: object
) -> Iterator[Orthanc]:
    """Run an empty PACS until the block ends.

    Args:
        folder: Where it keeps its files.
        user: Name and password without which it answers nothing.
        settings: More of its configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pacs = Orthanc(port=free_ports(1)[0], auth=user)
    config = {
        "Name": "tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": pacs.port,
        "RemoteAccessAllowed": False,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": user is not None,
        "RegisteredUsers": dict([user] if user else []),
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **settings,
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log
        )
    try:
        _wait(pacs, process, folder / "log")
        yield pacs
    finally:
        process.terminate()
        process.wait(timeout=START_S)


def _wait(pacs: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            requests.get(f"{pacs.url}/dicom-web/studies", auth=pacs.auth, timeout=1)
        except requests.ConnectionError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")
