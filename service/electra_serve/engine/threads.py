"""Chooses the number of engines and threads of a model on a CPU.

Under load one engine runs per core, since threads of one engine wait for each other at every layer. A lone request gets
all cores. A CPU quota counts as cores, since more threads would be throttled within a batch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

MIN_CORES_TO_RESERVE_ONE: Final = 8  # for the event loop
MAX_ENGINES: Final = 8  # more would not fill their batches
CGROUP_ROOT: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Engines of one model on a CPU."""

    engines: int  # that share the queue
    threads: int  # of each of them
    lone_threads: int = 0  # of one more engine for lone requests; 0 for none


def arrange(replicas: int, threads: int, cores: int) -> Arrangement:
    """Distributes cores over the engines of a model; `replicas` and `threads` of 0 are chosen automatically.

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
    """Returns `threads`, or for 0 the threads of each of `engines` engines that share the cores."""
    reserved = 1 if cores >= MIN_CORES_TO_RESERVE_ONE else 0
    return threads or max(1, (cores - reserved) // engines)


def usable_cores(cgroup_root: Path = CGROUP_ROOT) -> int:
    """Returns the cores that this process may use, at least 1; a CPU quota is rounded."""
    scheduled = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup_root)
    return scheduled if quota is None else max(1, min(scheduled, round(quota)))


def _quota(root: Path) -> float | None:
    try:
        limit, period = (root / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        limit, period = _first_line(root / "cpu/cpu.cfs_quota_us"), _first_line(root / "cpu/cpu.cfs_period_us")
    try:
        quota = int(limit) / int(period)
    except (ValueError, ZeroDivisionError):  # "max" or a missing file
        return None
    return quota if quota > 0 else None  # in cores; None without a limit


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
