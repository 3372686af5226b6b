"""How many engines a model has on a CPU, and how many threads each computes with.

The rule: under load one engine runs on each core, since two batches side by side take less time than two after one
another on both cores, whose threads wait for each other at every layer. Machines with many cores get at most
`MAX_ENGINES` engines of a few threads each: more would each wait longer for enough sequences to fill a batch. A lone
request has all cores. From eight cores on one is left to the event loop. Below that a core is too much to leave: the
loop needs a tenth of one while the engines are busy. Several models on one CPU are each given all the cores: they are
seldom busy together, and the operating system shares when they are.

The cores that a process may use are those it is scheduled on, or the CPU time that its container may take, if that is
less. An engine with more threads than that is stopped by the quota in the middle of every batch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

CORES_WITH_ONE_TO_SPARE: Final = 8
MAX_ENGINES: Final = 8
CGROUP_ROOT: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The engines of one model on a CPU.

    Attributes:
        engines: How many share the queue.
        threads: Of each of them.
        lone_threads: Of one more engine, for lone requests; 0: there is none.
    """

    engines: int
    threads: int
    lone_threads: int = 0


def arrange(replicas: int, threads: int, cores: int) -> Arrangement:
    """Shares the cores among the engines of a model.

    Args:
        replicas: Engines, as the settings say; 0: by the rule.
        threads: Threads of each, as the settings say; 0: by the rule.
        cores: From `usable_cores`.

    Example:
        >>> arrange(0, 0, cores=1), arrange(0, 0, cores=2)
        (Arrangement(engines=1, threads=1, lone_threads=0), Arrangement(engines=2, threads=1, lone_threads=2))
        >>> arrange(0, 0, cores=16), arrange(1, 0, cores=2)
        (Arrangement(engines=7, threads=2, lone_threads=15), Arrangement(engines=1, threads=2, lone_threads=0))
    """
    if replicas or threads:
        engines = replicas or 1
        return Arrangement(engines, engine_threads(threads, engines, cores))
    shared = engine_threads(0, 1, cores)
    each = ceil(shared / MAX_ENGINES)
    engines = shared // each
    return Arrangement(engines, each, shared if engines > 1 else 0)


def engine_threads(threads: int, engines: int, cores: int) -> int:
    """Threads for each of `engines` engines that share the cores in equal parts.

    Args:
        threads: What the settings say; 0: as the rule says.
        engines: Engines of the model on this CPU.
        cores: From `usable_cores`.

    Example:
        >>> engine_threads(0, 1, cores=2), engine_threads(0, 1, cores=8), engine_threads(0, 2, cores=16)
        (2, 7, 7)
        >>> engine_threads(3, 2, cores=16)
        3
    """
    spare = 1 if cores >= CORES_WITH_ONE_TO_SPARE else 0
    return threads or max(1, (cores - spare) // engines)


def usable_cores(cgroup_root: Path = CGROUP_ROOT) -> int:
    """Cores that this process may use at once, at least 1; a quota is rounded to whole ones."""
    scheduled = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup_root)
    return scheduled if quota is None else max(1, min(scheduled, round(quota)))


def _quota(root: Path) -> float | None:
    """Cores' worth of CPU time that the container may take, by cgroup version 2 or 1; None: as much as there is."""
    try:
        limit, period = (root / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        limit, period = _first_line(root / "cpu/cpu.cfs_quota_us"), _first_line(root / "cpu/cpu.cfs_period_us")
    try:
        quota = int(limit) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or no such file
        return None
    return quota if quota > 0 else None


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
