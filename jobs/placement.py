"""Where the stages of a run go: how many workers there are, and what each has to itself.

Ray waits without a word for what a cluster cannot give. So this is worked out before anything is
submitted, and what cannot be is an error that says what is missing.

Without GPUs the model's arithmetic is the limit, so every machine's CPUs go to workers that read,
score and publish: the *fused* layout. A large model has one worker a machine, where it is in memory
once; a small one has several, because Python would keep a single process from using all CPUs.

With GPUs, or on machines with roles, reading and publishing are tasks of their own, on CPUs that
the workers leave free: the *staged* layout.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.cluster import ROLE, Machine, RunError

DECODE, SCORE = "decode", "score"
MOST_IDLE = 0.25
"""Share of the CPUs of unlike machines that may stay idle, so that workers are few and large."""
TOO_SMALL = 0.25
"""A machine with less than this share of the largest one's CPUs is left out: workers all have the
same number, and one that fits there would be one of many on the largest, each with its model."""
FLOPS_PER_CPU = 2e9
"""Of a slice, for each CPU that a worker has a use for. These take a CPU 10 to 20 ms. Reading and
publishing a slice take 5 (256²) to 12 (512²), much of it Python, of which a process runs one thread
at a time."""
WORKER_BYTES = 2e9
"""What a worker with a small model takes of its machine's memory: most of it is no model's."""
READING = 0.5
"""Share of the CPUs for tasks that may read at once; so publishing keeps up with the run."""
PUBLISH_CPUS = 0.5
"""Of a publish task: half of its time it waits for storage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a person asked for; None: whatever is best."""

    workers: int | None = None
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None
    """Below 1, several workers share a GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tasks:
    """The read and publish tasks of the staged layout."""

    read_cpus: float
    publish_cpus: float
    readers: int
    """How many may read at once."""
    selector: dict[str, str] | None = None
    """Label of the machines they run on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """The layout of a run."""

    min_workers: int
    """Those that machines have room for that run already; at least 1, which may be waited for."""
    max_workers: int
    cpus: float
    """Of each worker."""
    gpus: float = 0.0
    selector: dict[str, str] | None = None
    """Label of the machines that workers run on."""
    tasks: Tasks | None = None
    """None: the workers read and publish themselves."""

    @property
    def fused(self) -> bool:
        """Whether workers read and publish themselves."""
        return self.tasks is None

    @property
    def threads(self) -> int:
        """Of the model in each worker."""
        return max(1, int(self.cpus))

    @property
    def resources(self) -> dict[str, Any]:
        """A worker's, as Ray names them."""
        return {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus or None,
            "label_selector": self.selector,
        }

    def line(self) -> str:
        """Describe the layout to a person."""
        some = "1" if self.max_workers == 1 else f"{self.min_workers} to {self.max_workers}"
        count = f"{self.max_workers}" if self.min_workers == self.max_workers else some
        has = _some(self.cpus, "CPU") + (f" and {_some(self.gpus, 'GPU')}" if self.gpus else "")
        doing = "reads, scores and publishes" if self.fused else "scores what others read"
        return f"workers: {count}, each has {has} and {doing}"


def place(machines: Sequence[Machine], wanted: Wanted, *, slice_flops: float) -> Placement:
    """Lay out a run on machines that are there or may be started.

    Args:
        machines: those.
        wanted: what a person asked for.
        slice_flops: floating-point operations that the model needs for a slice, about.

    Raises:
        RunError: what is wanted does not fit; the message says what is missing.
    """
    machines = [machine for machine in machines if machine.cpus > 0]
    if not machines:
        raise RunError(
            "no machine of the cluster has a CPU for this job. If its autoscaler starts machines "
            "on demand, submit the job to its head with `ray job submit`, where it can be asked"
        )
    with_roles = any(machine.role in (DECODE, SCORE) for machine in machines)
    hosts = _of_role(machines, SCORE) if with_roles else machines
    gpus = _gpus_per_worker(hosts, wanted)
    hosts = [host for host in hosts if host.gpus >= gpus]
    staged = with_roles or gpus > 0
    most_cpus = max(1, int(slice_flops / FLOPS_PER_CPU))
    cpus = _cpus_per_worker(hosts, wanted, gpus, most_cpus, sharing=staged and not with_roles)
    fitting = _count(hosts, cpus, gpus)
    most = wanted.workers or fitting
    if most > fitting:
        raise _misfit(most, cpus, gpus, hosts)
    tasks = None
    if staged:
        left = (
            _of_role(machines, DECODE)
            if with_roles
            else [_without_workers(machine, cpus, gpus) for machine in machines]
        )
        tasks = _tasks(left, DECODE if with_roles else None)
    running = _count([host for host in hosts if host.running], cpus, gpus)
    return Placement(
        min_workers=max(1, min(most, running)),
        max_workers=most,
        cpus=cpus,
        gpus=gpus,
        selector={ROLE: SCORE} if with_roles else None,
        tasks=tasks,
    )


def largest_share(machines: Sequence[Machine], workers: int, *, gpus: float) -> int:
    """Return how many CPUs each of several workers can have, all running at once.

    Args:
        machines: where they may run.
        workers: how many there will be.
        gpus: how many GPUs each needs.

    Raises:
        RunError: there are too few CPUs or GPUs.
    """
    largest = int(max((machine.cpus for machine in machines), default=0))
    for cpus in range(largest, 0, -1):
        if _count(machines, cpus, gpus) >= workers:
            return cpus
    raise _misfit(workers, 1, gpus, machines)


def _of_role(machines: Sequence[Machine], role: str) -> list[Machine]:
    found = [machine for machine in machines if machine.role == role]
    if not found:
        raise RunError(
            f"no machine is labelled {ROLE}={role}, and others have roles: label some, or none. "
            f"There are {_told(machines)}"
        )
    return found


def _gpus_per_worker(hosts: Sequence[Machine], wanted: Wanted) -> float:
    most = max(host.gpus for host in hosts)
    if wanted.gpus_per_worker is None:
        return 1.0 if most else 0.0
    if wanted.gpus_per_worker > most:
        has = f"no machine has more than {most:g}" if most else "the cluster has no GPU"
        raise RunError(f"--gpus-per-worker {wanted.gpus_per_worker:g}: {has}: {_told(hosts)}")
    return wanted.gpus_per_worker


def _cpus_per_worker(
    hosts: Sequence[Machine], wanted: Wanted, gpus: float, most: int, *, sharing: bool
) -> float:
    """Return the CPUs of each worker.

    Args:
        hosts: machines for workers.
        wanted: what a person asked for.
        gpus: of each worker.
        most: CPUs that a worker without GPU has a use for.
        sharing: whether the machines have other tasks, too.
    """
    if wanted.cpus_per_worker is not None:
        largest = max(host.cpus for host in hosts)
        if wanted.cpus_per_worker > largest:
            raise RunError(
                f"--cpus-per-worker {wanted.cpus_per_worker}: no machine for workers has more "
                f"than {largest:g}: {_told(hosts)}"
            )
        return wanted.cpus_per_worker
    if sharing:  # a GPU's worker needs little, but a machine has to have CPUs left for tasks
        return min(1.0, *(_floor(host.cpus / (2 * _fit(host, 0, gpus))) for host in hosts))
    if wanted.workers is not None:
        return largest_share(hosts, wanted.workers, gpus=gpus)
    if gpus:
        least = min(host.cpus / _fit(host, 0, gpus) for host in hosts)
        return math.floor(least) if least >= 1 else _floor(least)
    return _even_share(hosts, most)


def _even_share(hosts: Sequence[Machine], most: int) -> int:
    """Return CPUs of a worker, such that all machines have one, and few CPUs are idle.

    No more than `most`, where memory allows for as many workers as there are then.
    """
    largest = max(host.cpus for host in hosts)
    hosts = [host for host in hosts if host.cpus >= TOO_SMALL * largest]
    total = sum(host.cpus * host.count for host in hosts)
    smallest = max(1, int(min(host.cpus for host in hosts)))
    least = min(smallest, max(map(_memory_share, hosts)))
    useful = smallest // math.ceil(
        smallest / most
    )  # in even shares: no CPU of the smallest is idle
    for cpus in range(max(useful, least), least, -1):
        if cpus * _count(hosts, cpus, 0) >= (1 - MOST_IDLE) * total:
            return cpus
    return least


def _memory_share(host: Machine) -> int:
    """Return how many CPUs each worker of a machine must have for all workers to have memory."""
    if host.memory is None:
        return 1
    cpus = max(1, int(host.cpus))
    share = math.ceil(cpus / max(1, host.memory // WORKER_BYTES))
    return cpus // (cpus // share)  # what as many workers can have


def _without_workers(machine: Machine, cpus: float, gpus: float) -> Machine:
    used = cpus * _fit(machine, cpus, gpus) if machine.gpus >= gpus else 0
    return Machine(cpus=machine.cpus - used, count=machine.count, running=machine.running)


def _tasks(machines: Sequence[Machine], role: str | None) -> Tasks:
    """Lay out tasks on what CPUs of machines are free; one that reads and one that publishes fit.

    Raises:
        RunError: no CPU is free.
    """
    most = max(machine.cpus for machine in machines)
    if most <= 0:
        raise RunError(
            "--cpus-per-worker leaves no CPU for the tasks that read and publish: make it smaller"
        )
    read, publish = min(1.0, _floor(most / 2)), min(PUBLISH_CPUS, _floor(most / 2))
    total = sum(machine.count * machine.cpus for machine in machines)
    return Tasks(
        read_cpus=read,
        publish_cpus=publish,
        readers=max(1, int(READING * total / read)),
        selector={ROLE: role} if role else None,
    )


def _count(machines: Sequence[Machine], cpus: float, gpus: float) -> int:
    return sum(machine.count * _fit(machine, cpus, gpus) for machine in machines)


def _fit(machine: Machine, cpus: float, gpus: float) -> int:
    """Return how many workers a machine has room for; 0 CPUs or GPUs do not limit them."""
    limits = [
        int(have / need + 1e-6)
        for have, need in ((machine.cpus, cpus), (machine.gpus, gpus))
        if need
    ]
    return min(limits)


def _floor(cpus: float) -> float:
    """Round down to the hundredths of a CPU."""
    return max(0.01, math.floor(cpus * 100) / 100)


def _misfit(workers: int, cpus: float, gpus: float, machines: Sequence[Machine]) -> RunError:
    each = _some(cpus, "CPU") + (f" and {_some(gpus, 'GPU')}" if gpus else "")
    return RunError(f"{workers} workers with {each} each do not fit: {_told(machines)}")


def _told(machines: Sequence[Machine]) -> str:
    """Describe machines: "3 machines with 8 CPUs, 1 with 16 CPUs and 1 GPU (not started)"."""
    kinds: Counter[str] = Counter()
    for machine in machines:
        gpus = f" and {_some(machine.gpus, 'GPU')}" if machine.gpus else ""
        state = "" if machine.running else " (not started yet)"
        kinds[_some(machine.cpus, "CPU") + gpus + state] += machine.count
    (first, count), *others = kinds.items()
    parts = [f"{_some(count, 'machine')} with {first}"]
    return ", ".join([*parts, *(f"{count} with {kind}" for kind, count in others)])


def _some(count: float, thing: str) -> str:
    return f"{count:g} {thing}" + "s" * (count != 1)
