"""A scoring job from its configuration to its report; all that takes long to import comes along."""

from __future__ import annotations

from io_adapters.dicomweb import reach
from io_adapters.dicomweb_uri import is_pacs
from io_adapters.results import earlier_failures, earlier_records
from jobs.config import ScoreConfig
from jobs.derivatives import write_derivatives
from jobs.errors import ConfigError
from jobs.ledger import Ledger, State
from jobs.plan import make_plan, run_settings
from jobs.run import Run, check_method, check_output, describe_model
from zsad.backbone import WeightsError
from zsad.checkpoints import Checkpoint
from zsad.detectors import complete_checkpoint


def run_job(config: ScoreConfig) -> bool:
    """Plan, score on the Ray that is joined, finish; tells whether every input was scored.

    Raises:
        ConfigError: something that was asked for is not there, or does not go together.
        RunError: Ray lost the run.
    """
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
            return True
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
        return not (run.failed or run.unsent)


def check_model(config: ScoreConfig) -> Checkpoint:
    """Load the model once here, where an error is one line, before workers load theirs.

    Raises:
        ConfigError: another method was asked for, there is no usable checkpoint, or its CLIP is not
            there or another one.
    """
    try:
        checkpoint = complete_checkpoint(config.checkpoint, clip=config.clip)
    except WeightsError as error:
        raise ConfigError(str(error)) from error
    check_method(config.detector, checkpoint, config.checkpoint)
    return checkpoint
