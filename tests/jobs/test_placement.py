"""How a run is laid out, on all kinds of clusters, and what is refused at once."""

from __future__ import annotations

import pytest

from jobs.cluster import ROLE, Machine, RunError
from jobs.placement import Placement, Wanted, largest_share, place

LAPTOP = [Machine(cpus=8)]
SERVER = [Machine(cpus=16, gpus=1)]
CROWDED = [Machine(cpus=4, gpus=4)]
MIXED = [Machine(cpus=16), Machine(cpus=8, gpus=1), Machine(cpus=8, gpus=1)]
HEAD = Machine(cpus=0)
ASLEEP = [HEAD, Machine(cpus=8, gpus=1, count=8, running=False)]
FAKED = [Machine(cpus=2, count=3)]
LARGE, SMALL = 1e12, 1.4e9
"""Floating-point operations of a slice: ViT-L-14-336 at 518 px, and the embedded model."""
GB = 1e9


def of_role(role: str, cpus: float, gpus: float = 0, count: int = 1) -> Machine:
    return Machine(cpus=cpus, gpus=gpus, labels={ROLE: role}, count=count)


CPU_ROLES = [HEAD, of_role("decode", 4), of_role("score", 8, count=2)]
GPU_ROLES = [of_role("decode", 16, count=2), of_role("score", 8, gpus=4), Machine(cpus=64, gpus=8)]


def workers(placement: Placement) -> tuple[int, int, float, float]:
    return placement.min_workers, placement.max_workers, placement.cpus, placement.gpus


@pytest.mark.parametrize(
    ("machines", "expected"),
    [
        (LAPTOP, (1, 1, 8, 0)),
        ([Machine(cpus=1)], (1, 1, 1, 0)),
        (FAKED, (3, 3, 2, 0)),
        ([HEAD, Machine(cpus=2), Machine(cpus=2), Machine(cpus=1)], (5, 5, 1, 0)),
        ([Machine(cpus=8), Machine(cpus=6)], (2, 2, 6, 0)),
        ([Machine(cpus=64), Machine(cpus=16)], (5, 5, 16, 0)),
        ([Machine(cpus=64), Machine(cpus=2)], (1, 1, 64, 0)),
        ([Machine(cpus=4), Machine(cpus=4, count=5, running=False)], (1, 6, 4, 0)),
    ],
)
def test_without_gpus_workers_do_all_and_have_all_cpus(
    machines: list[Machine], expected: tuple[int, int, float, float]
) -> None:
    placement = place(machines, Wanted(), slice_flops=LARGE)
    assert placement.fused
    assert workers(placement) == expected
    assert placement.threads == expected[2]


@pytest.mark.parametrize(
    ("machines", "slice_flops", "expected"),
    [
        (LAPTOP, SMALL, (8, 8, 1, 0)),
        (LAPTOP, 4.5e9, (4, 4, 2, 0)),
        ([HEAD, *FAKED], SMALL, (6, 6, 1, 0)),
        ([Machine(cpus=64)], 35e9, (4, 4, 16, 0)),  # ViT-B-16 at 224 px
        ([Machine(cpus=8, memory=32 * GB)], SMALL, (8, 8, 1, 0)),
        ([Machine(cpus=8, memory=9 * GB)], SMALL, (4, 4, 2, 0)),
        ([Machine(cpus=8, memory=6 * GB)], SMALL, (2, 2, 4, 0)),
        ([Machine(cpus=8, memory=1 * GB)], SMALL, (1, 1, 8, 0)),
        ([Machine(cpus=4, memory=32 * GB), Machine(cpus=4, memory=4 * GB)], SMALL, (4, 4, 2, 0)),
    ],
)
def test_a_small_model_has_as_many_workers_as_python_and_memory_need(
    machines: list[Machine], slice_flops: float, expected: tuple[int, int, float, float]
) -> None:
    placement = place(machines, Wanted(), slice_flops=slice_flops)
    assert placement.fused
    assert workers(placement) == expected


@pytest.mark.parametrize(
    ("machines", "expected", "tasks"),
    [
        (SERVER, (1, 1, 1, 1), (1, 0.5, 7)),
        (CROWDED, (4, 4, 0.5, 1), (1, 0.5, 1)),
        ([Machine(cpus=1, gpus=1)], (1, 1, 0.5, 1), (0.25, 0.25, 1)),
        (MIXED, (2, 2, 1, 1), (1, 0.5, 15)),
        (ASLEEP, (1, 8, 1, 1), (1, 0.5, 28)),
    ],
)
def test_with_gpus_each_has_a_worker_and_cpus_are_left_for_tasks(
    machines: list[Machine],
    expected: tuple[int, int, float, float],
    tasks: tuple[float, float, int],
) -> None:
    placement = place(machines, Wanted(), slice_flops=LARGE)
    assert workers(placement) == expected
    assert placement.tasks is not None
    assert (
        placement.tasks.read_cpus,
        placement.tasks.publish_cpus,
        placement.tasks.readers,
    ) == tasks
    assert placement.selector is placement.tasks.selector is None


@pytest.mark.parametrize(
    ("machines", "expected", "readers"),
    [(CPU_ROLES, (2, 2, 8, 0), 2), (GPU_ROLES, (4, 4, 2, 1), 16)],
)
def test_machines_with_roles_do_nothing_else(
    machines: list[Machine], expected: tuple[int, int, float, float], readers: int
) -> None:
    placement = place(machines, Wanted(), slice_flops=LARGE)
    assert workers(placement) == expected
    assert placement.selector == {ROLE: "score"}
    assert placement.tasks is not None
    assert placement.tasks.selector == {ROLE: "decode"}
    assert placement.tasks.readers == readers


@pytest.mark.parametrize(
    ("machines", "wanted", "expected"),
    [
        (LAPTOP, Wanted(workers=2), (2, 2, 4, 0)),
        (LAPTOP, Wanted(workers=3), (3, 3, 2, 0)),
        (LAPTOP, Wanted(cpus_per_worker=3), (2, 2, 3, 0)),
        (LAPTOP, Wanted(workers=1, cpus_per_worker=2), (1, 1, 2, 0)),
        (SERVER, Wanted(gpus_per_worker=0.5), (2, 2, 1, 0.5)),
        (SERVER, Wanted(gpus_per_worker=0), (1, 1, 16, 0)),
        (SERVER, Wanted(cpus_per_worker=4), (1, 1, 4, 1)),
        (CROWDED, Wanted(workers=2), (2, 2, 0.5, 1)),
        (CROWDED, Wanted(gpus_per_worker=2), (2, 2, 1, 2)),
        (ASLEEP, Wanted(workers=3), (1, 3, 1, 1)),
        (GPU_ROLES, Wanted(workers=2), (2, 2, 4, 1)),
    ],
)
def test_what_is_wanted_is_what_is_planned(
    machines: list[Machine], wanted: Wanted, expected: tuple[int, int, float, float]
) -> None:
    placement = place(machines, wanted, slice_flops=LARGE)
    assert workers(placement) == expected
    assert placement.fused == (not expected[3])


@pytest.mark.parametrize(
    ("machines", "wanted", "message"),
    [
        (LAPTOP, Wanted(gpus_per_worker=1), r"--gpus-per-worker 1: the cluster has no GPU: 1 mach"),
        (FAKED, Wanted(gpus_per_worker=0.5), r"no GPU: 3 machines with 2 CPUs$"),
        (SERVER, Wanted(gpus_per_worker=2), r"no machine has more than 1: 1 machine with 16 CPUs"),
        (FAKED, Wanted(cpus_per_worker=3), r"--cpus-per-worker 3: no machine .* more than 2: 3"),
        (LAPTOP, Wanted(workers=9), r"9 workers with 1 CPU each do not fit: 1 machine with 8 CP"),
        (FAKED, Wanted(workers=4, cpus_per_worker=2), "4 workers with 2 CPUs each do not fit"),
        (SERVER, Wanted(workers=2), r"2 workers with 1 CPU and 1 GPU each do not fit: .* 1 GPU$"),
        (SERVER, Wanted(cpus_per_worker=16), "leaves no CPU for the tasks that read"),
        (ASLEEP, Wanted(workers=9), r"8 with 8 CPUs|8 machines with 8 CPUs and 1 GPU \(not start"),
        ([HEAD], Wanted(), "no machine of the cluster has a CPU"),
        ([], Wanted(), "no machine of the cluster has a CPU"),
        (CPU_ROLES[:2], Wanted(), f"no machine is labelled {ROLE}=score"),
        ([of_role("score", 4), LAPTOP[0]], Wanted(), f"no machine is labelled {ROLE}=decode"),
        (CPU_ROLES, Wanted(gpus_per_worker=1), "no GPU: 2 machines with 8 CPUs"),
    ],
)
def test_what_cannot_be_is_told_and_not_waited_for(
    machines: list[Machine], wanted: Wanted, message: str
) -> None:
    with pytest.raises(RunError, match=message):
        place(machines, wanted, slice_flops=LARGE)


@pytest.mark.parametrize("gpus", [0, 1, 2, 4, 8])
@pytest.mark.parametrize("cpus", [1, 2, 3, 8, 96])
@pytest.mark.parametrize("per_worker", [None, 0.1, 0.5, 1])
@pytest.mark.parametrize("flops", [SMALL, LARGE])
def test_every_plan_leaves_room_to_read_and_to_publish(
    cpus: int, gpus: int, per_worker: float | None, flops: float
) -> None:
    if not gpus and per_worker:
        return
    wanted = Wanted(gpus_per_worker=per_worker)
    placement = place([Machine(cpus=cpus, gpus=gpus)], wanted, slice_flops=flops)
    used = placement.max_workers * placement.cpus
    if placement.tasks:
        used += placement.tasks.read_cpus + placement.tasks.publish_cpus
    assert used <= cpus
    assert placement.max_workers * placement.gpus <= gpus


@pytest.mark.parametrize(("workers", "share"), [(1, 8), (2, 6), (3, 4), (5, 2), (14, 1)])
def test_workers_get_as_many_cpus_as_fit_at_once(workers: int, share: int) -> None:
    machines = [Machine(cpus=8), Machine(cpus=6), HEAD]
    assert largest_share(machines, workers, gpus=0) == share


def test_a_worker_with_a_gpu_gets_its_cpus_where_the_gpu_is() -> None:
    machines = [Machine(cpus=64), Machine(cpus=8, gpus=2)]
    assert largest_share(machines, 2, gpus=1) == 4
    assert largest_share(machines, 4, gpus=0.5) == 2
    with pytest.raises(RunError, match="3 workers with 1 CPU and 1 GPU"):
        largest_share(machines, 3, gpus=1)
