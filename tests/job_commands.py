"""The commands of the scoring job that files and pages show, as what the job's parser is given."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
JOB = "jobs/score_dataset.py"


def shown_commands(text: str) -> list[list[str]]:
    """Return the arguments of each command that runs the job, a comment's or a program's.

    Lines that end with a backslash go on in the next one; a shell's `||`, `;`, `&&`, quote or
    comment ends a command.
    """
    lines = [line.strip().removeprefix("#").strip() for line in text.splitlines()]
    joined = re.sub(r"\s*\\\n", " ", "\n".join(lines))
    found = re.findall(rf"^.*{re.escape(JOB)}(?: ([^|;&'\n]*))?", joined, flags=re.MULTILINE)
    commands = [shlex.split(arguments, comments=True) for arguments in found]
    return [command for command in commands if "--input" in command]


def on_this_machine(command: list[str], models: Path) -> list[str]:
    """Return a command with its models below a folder, where files of their names are made."""
    for name in (word.removeprefix("/models/") for word in command if word.startswith("/models/")):
        (models / name).touch()
    return [word.replace("/models/", f"{models}/") for word in command]


def ray_version() -> str:
    """Return the version of Ray that the tests and the image run with."""
    pins = (ROOT / "constraints.txt").read_text()
    return re.findall(r"^ray==(.+)$", pins, flags=re.MULTILINE)[0]
