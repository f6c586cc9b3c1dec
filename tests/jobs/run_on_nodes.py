"""Score pictures on the cluster that RAY_ADDRESS names, and print who did what.

    python run_on_nodes.py CHECKPOINT FOLDER PICTURES MACHINES

MACHINES have to score before the first block ends. A program, because a process has one Ray.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ray
from stage_runs import NotingWatch, pictures, scores_of, stage_settings

from jobs import stages
from jobs.cluster import ROLE, connect, machines
from jobs.placement import Wanted, place


def main(checkpoint: str, folder: str, count: str, scoring: str) -> None:
    """Print one line of JSON."""
    connect()
    watch = NotingWatch(machines=int(scoring))
    stages.Watch = lambda: watch  # type: ignore[assignment,misc]
    placement = place(machines(), Wanted(), slice_flops=1e9)
    settings = stage_settings(Path(checkpoint), Path(folder) / "out")
    todo = pictures(Path(folder) / "in", int(count))
    scores = scores_of(list(stages.run_stages(todo, settings, placement)))
    told = {
        "fused": placement.fused,
        "workers": placement.max_workers,
        "scores": scores,
        "roles": {node["NodeID"]: node["Labels"].get(ROLE) for node in ray.nodes()},
        "nodes": {stage: watch.nodes(stage) for stage in ("read", "score", "publish")},
        "waited_in_vain": watch.nodes("waited in vain"),
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
