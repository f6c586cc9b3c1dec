"""Measure a detector on a labelled set: a table of metrics, class by class.

On a laptop or a server:

    python jobs/evaluate.py --data MVTEC --domain industrial --output OUT \
        --checkpoint model.safetensors

To repeat what AA-CLIP's authors measured (their lists and their descriptions of classes):

    python jobs/evaluate.py --data full-shot.jsonl --root MVTEC --domain industrial --output OUT \
        --checkpoint CKPT_FOLDER --clip openai --descriptions descriptions.yaml \
        --scores published --precision fp32 --dataset mvtec

OUT gets metrics.json and metrics.csv. Images that a set keeps for training are left out. Exit
code: 0 every image evaluated, 3 some could not be read (they are named), 1 the run itself failed,
2 wrong usage.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence

from ray.exceptions import RayError

from io_adapters import storage
from io_adapters.datasets import DatasetError, LabelledImage, read_labelled
from io_adapters.scan import StorageError
from jobs.cluster import RunError, connect
from jobs.evaluation.config import EvaluateConfig, parse_config
from jobs.evaluation.published import PUBLISHED
from jobs.evaluation.run import Evaluation
from jobs.evaluation.table import as_csv, as_text, mean_of
from jobs.progress import Progress
from jobs.run import check_method, describe_model
from jobs.settings import ConfigError
from zsad.backbone import WeightsError
from zsad.checkpoints import Checkpoint
from zsad.detectors import load_detector

EVALUATED, RUN_FAILED, WRONG_USAGE, SOME_FAILED = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    try:
        config = parse_config(arguments)
        items = labelled_images(config)
        evaluation = Evaluation(config, check_model(config))
        run(evaluation, items)
        print(write(evaluation))
    except (ConfigError, WeightsError, DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USAGE
    except (RunError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return RUN_FAILED
    except KeyboardInterrupt:
        print("\nstopped; nothing was written", file=sys.stderr)
        return RUN_FAILED
    for failure in evaluation.failures:
        print(f"not evaluated: {failure.uri}: {failure.message}", file=sys.stderr)
    return SOME_FAILED if evaluation.failures else EVALUATED


def check_model(config: EvaluateConfig) -> Checkpoint:
    """Load the model once here, where an error is one line, before workers load theirs.

    Raises:
        ConfigError: another method was asked for, or nothing was published of this one.
        WeightsError: there is no usable checkpoint, or its CLIP is not there.
    """
    _, model = load_detector(config.checkpoint, clip=config.clip)
    check_method(config.detector, model, config.checkpoint)
    known = PUBLISHED[model.method].means
    if config.dataset and config.dataset not in known:
        raise ConfigError(
            f"--dataset {config.dataset}: of {model.method} there are {', '.join(known)}"
        )
    return model


def labelled_images(config: EvaluateConfig) -> list[LabelledImage]:
    """List the set without what it keeps for training.

    Raises:
        ConfigError: nothing is left.
        DatasetError: the set is broken.
    """
    items = read_labelled(
        config.data,
        domain=config.domain.value,
        root=config.root,
        descriptions=config.read_descriptions(),
    )
    tested = [item for item in items if item.split != "train"]
    if not tested:
        raise ConfigError(f"--data {config.data}: all {len(items)} images are for training")
    print(f"found {len(tested)} images to test on, and {len(items) - len(tested)} for training")
    return tested


def run(evaluation: Evaluation, items: Sequence[LabelledImage]) -> None:
    """Evaluate all images, telling how far it is.

    Raises:
        RunError: Ray lost the run.
    """
    print("starting Ray and loading the model", flush=True)
    connect()
    progress = Progress(len(items))
    try:
        for went_well in evaluation.run(items):
            progress.add(slices=int(went_well), failed=not went_well)
    except RayError as error:
        raise RunError(
            f"Ray ended the run ({type(error).__name__}) after {progress.done} of {len(items)} "
            f"images: {str(error).splitlines()[-1]}"
        ) from error
    if progress.done != len(items):
        raise RunError(f"Ray gave back {progress.done} of {len(items)} images: run again")
    if not evaluation.tallies:
        raise RunError(f"no image could be evaluated: {evaluation.failures[0].message}")


def write(evaluation: Evaluation) -> str:
    """Write `metrics.json` and `metrics.csv`; return the table for a person."""
    config, rows = evaluation.config, evaluation.rows()
    by_authors = PUBLISHED[evaluation.model.method]
    published = by_authors.means[config.dataset] if config.dataset else None
    summary = {
        "settings": config.to_dict(),
        "model": describe_model(evaluation.model),
        "classes": [row._asdict() for row in rows],
        "mean": mean_of(rows)._asdict(),
        "published": published,
        "failures": [dataclasses.asdict(failure) for failure in evaluation.failures],
    }
    content = json.dumps(summary, indent=1, allow_nan=False)
    storage.put_bytes(storage.join(config.output, "metrics.json"), content.encode())
    storage.put_bytes(storage.join(config.output, "metrics.csv"), as_csv(rows).encode())
    return as_text(rows, (by_authors.title, published) if published else None)


if __name__ == "__main__":
    sys.exit(main())
