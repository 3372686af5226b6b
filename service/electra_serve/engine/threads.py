"""How many threads an engine computes with on a CPU.

The rule: the engines of one model share the cores that this process may use, in equal parts; from eight cores on one is
left to the event loop. Below that a core is too much to leave: the loop needs a tenth of one while the engine is busy,
and what it takes from the engine is less than an idle core would cost. Several models on one CPU are each given all the
cores: they are seldom busy together, and the operating system shares when they are.

The cores that a process may use are those it is scheduled on, or the CPU time that its container may take, if that is
less. An engine with more threads than that is stopped by the quota in the middle of every batch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

CORES_WITH_ONE_TO_SPARE: Final = 8
CGROUP_ROOT: Final = Path("/sys/fs/cgroup")


def engine_threads(threads: int, replicas: int, cores: int) -> int:
    """Threads for each of `replicas` engines.

    Args:
        threads: What the settings say; 0: as the rule says.
        replicas: Engines of the model on this CPU.
        cores: From `usable_cores`.

    Example:
        >>> engine_threads(0, 1, cores=2), engine_threads(0, 1, cores=8), engine_threads(0, 2, cores=16)
        (2, 7, 7)
        >>> engine_threads(3, 2, cores=16)
        3
    """
    spare = 1 if cores >= CORES_WITH_ONE_TO_SPARE else 0
    return threads or max(1, (cores - spare) // replicas)


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
