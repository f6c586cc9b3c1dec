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
from io_adapters.results import earlier_failures, earlier_records
from io_adapters.scan import ScanError
from jobs.cluster import RunError, machines
from jobs.config import ScoreConfig, parse_config
from jobs.derivatives import write_derivatives
from jobs.ledger import Ledger, State
from jobs.placement import place
from jobs.plan import make_plan, run_settings
from jobs.run import Run, check_method, check_output, describe_model
from jobs.settings import ConfigError
from zsad.backbone import WeightsError
from zsad.checkpoints import Checkpoint
from zsad.detectors import complete_checkpoint

SCORED, RUN_FAILED, WRONG_USAGE, SOME_FAILED = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    try:
        return run_job(parse_config(arguments))
    except (ConfigError, WeightsError, FileNotFoundError) as error:
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


def run_job(config: ScoreConfig) -> int:
    """Plan, score, finish; returns the exit code of a run that came to its end."""
    if not config.dry_run:
        place(machines(), config.wanted)  # first: a large model takes longer to load
    model = check_model(config)
    settings = run_settings(config, model)
    check_output(config, settings)
    for archive in filter(is_pacs, (*config.input, *config.send_to)):
        reach(archive)
    with Ledger.open() as ledger:
        ledger.remember(earlier_records(config.output), earlier_failures(config.output))
        plan = make_plan(config, settings, ledger)
        if config.dry_run:
            print("\n".join(plan.lines()))
            return SCORED
        run = Run(config, model, plan, ledger)
        run.score()
        reports = run.finish()
        if config.bids_output:
            records = ledger.records(State.KEPT, State.SCORED)
            write_derivatives(config, records, heat=describe_model(model)["heat"])
        print(f"scored scans: {run.scored}, failed inputs: {run.failed}")
        if run.unsent:
            print(f"results of {run.unsent} scans were not sent (failures.csv); run again to send")
        print("\n".join(f"report: {uri}" for uri in reports))
        return SOME_FAILED if run.failed or run.unsent else SCORED


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
