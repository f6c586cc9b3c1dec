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
from collections.abc import Sequence

from io_adapters.dicomweb import reach
from io_adapters.dicomweb_uri import is_pacs
from io_adapters.scan import ScanError
from jobs.cluster import RunError
from jobs.config import ScoreConfig, parse_config
from jobs.derivatives import write_derivatives
from jobs.plan import make_plan
from jobs.run import Run, check_method, describe_model
from jobs.settings import ConfigError
from zsad.backbone import WeightsError
from zsad.checkpoints import Checkpoint
from zsad.detectors import complete_checkpoint

SCORED, RUN_FAILED, WRONG_USAGE, SOME_FAILED = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    try:
        config = parse_config(arguments)
        model = check_model(config)  # first, because it is what is wrong most often
        for archive in filter(is_pacs, (*config.input, *config.send_to)):
            reach(archive)
        plan = make_plan(config, model)
        if config.dry_run:
            print("\n".join(plan.lines()))
            return SCORED
        run = Run(config, model, plan)
        run.score()
        report = run.finish()
        if config.bids_output:
            refs = (ref for ref, _ in plan.scans)
            write_derivatives(config, refs, run.records, heat=describe_model(model)["heat"])
    except (ConfigError, WeightsError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USAGE
    except (RunError, ScanError) as error:
        print(f"error: {error}", file=sys.stderr)
        return RUN_FAILED
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where this one ended", file=sys.stderr)
        return RUN_FAILED
    print(f"scored scans: {len(run.records)}, failed inputs: {run.failed}\nreport: {report}")
    if unsent := len(run.failures) - run.failed:
        print(f"results of {unsent} scans were not sent (failures.csv); run again to send them")
    return SOME_FAILED if run.failures else SCORED


def check_model(config: ScoreConfig) -> Checkpoint:
    """Load the model once here, where an error is one line, before workers load theirs.

    Raises:
        ConfigError: another method was asked for.
        WeightsError: there is no usable checkpoint, or its CLIP is not there or another one.
    """
    checkpoint = complete_checkpoint(config.checkpoint, clip=config.clip)
    check_method(config.detector, checkpoint, config.checkpoint)
    return checkpoint


if __name__ == "__main__":
    sys.exit(main())
