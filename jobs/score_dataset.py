"""Score an archive: find its scans, score what is new, write maps, scores and a report.

On a laptop or a server:

    python jobs/score_dataset.py --input ARCHIVE --output OUT --checkpoint model.safetensors

On a Ray cluster, from the root of this repository:

    ray job submit --working-dir . -- python jobs/score_dataset.py --input s3://bucket/scans \
        --output s3://bucket/results --checkpoint /models/model.safetensors

`--dry-run` shows what would be read and scored. Exit code: 0 every input scored, 3 some failed
(their reasons are in failures.csv), 1 the run itself failed, 2 wrong usage.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Thread

from io_adapters import storage
from io_adapters.scan import ScanError
from jobs.cluster import RunError, connect, machines
from jobs.config import ScoreConfig, parse_config
from jobs.errors import ConfigError
from jobs.placement import place
from zsad.weights import embedded

SCORED, RUN_FAILED, WRONG_USAGE, SOME_FAILED = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    try:
        config = parse_config(arguments)
        if not config.dry_run:
            start(config)
        from jobs.archive_job import run_job  # takes seconds: what is wrong is told before

        return SCORED if run_job(config) else SOME_FAILED
    except (ConfigError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USAGE
    except (RunError, ScanError) as error:
        print(f"error: {error}", file=sys.stderr)
        return RUN_FAILED
    except OSError as error:  # without its path, which may be made of a patient's name
        reason = error.strerror or type(error).__name__
        print(f"error: {reason}: can --input be read, and --output be written?", file=sys.stderr)
        return RUN_FAILED
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where this one ended", file=sys.stderr)
        return RUN_FAILED


def start(config: ScoreConfig) -> None:
    """Join or start Ray, whose processes take as long as our imports: the two go side by side.

    Raises:
        ConfigError: the checkpoint is not there.
        FileNotFoundError: an input on this machine is not.
        RunError: the cluster does not answer, or has no room for what is wanted.
    """
    place(machines(), config.wanted, slice_flops=0)  # which decides how many, not whether any
    check_paths(config)
    with imported("jobs.archive_job"):
        connect()


def check_paths(config: ScoreConfig) -> None:
    """Look whether the checkpoint and what input is on this machine are there at all.

    Raises:
        ConfigError: the checkpoint is not.
        FileNotFoundError: an input is not.
    """
    if config.checkpoint not in embedded() and not Path(config.checkpoint).exists():
        names = ", ".join(embedded())
        raise ConfigError(
            f"no checkpoint at {config.checkpoint}; models inside this package: {names}"
        )
    for uri in filter(storage.is_local, config.input):
        if not storage.exists(uri):
            raise FileNotFoundError(f"no file or folder at {uri}")


@contextmanager
def imported(module: str) -> Iterator[None]:
    """Import a module beside what the block does, in a thread; an error comes when it is used.

    Not the other way round: a thread that starts Ray must live as long as Ray's processes, which
    the kernel ends with it, and leaves a SIGTERM without the handler that ends Ray.
    """
    thread = Thread(target=import_module, args=(module,), name=f"import {module}")
    thread.start()
    try:
        yield
    finally:
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
