"""Train a method's weights on labelled sets, through Ray Train.

On a laptop or a server:

    python jobs/train.py --method aaclip --config train.yaml

On a Ray cluster, from the root of this repository (paths absolute, or in a bucket):

    ray job submit --working-dir . -- python jobs/train.py --method aaclip --config train.yaml \
        --workers 4 --gpus-per-worker 1

The same command again continues a run that was stopped or killed, from its last epoch. The
configuration is described in docs/training.md. Exit code: 0 trained, 1 the run failed, 2 wrong
usage.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from io_adapters.scan import StorageError
from jobs.cluster import RunError
from jobs.settings import ConfigError
from jobs.training.config import parse_train_config
from jobs.training.lists import read_lists
from jobs.training.run import TrainingRun
from zsad.backbone import WeightsError

TRAINED, RUN_FAILED, WRONG_USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    try:
        config = parse_train_config(arguments)
        lists = read_lists(config)
        print("\n".join(lists.lines()), flush=True)
        run = TrainingRun(config, lists)
        if not run.finished:
            run.train()
    except (ConfigError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USAGE
    except (RunError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return RUN_FAILED
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last epoch", file=sys.stderr)
        return RUN_FAILED
    print(f"checkpoint: {run.checkpoint}")
    return TRAINED


if __name__ == "__main__":
    sys.exit(main())
