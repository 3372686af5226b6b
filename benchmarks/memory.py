"""Memory of a process and its children, from `/proc`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SMAPS: Final = "smaps_rollup"


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory.

    Attributes:
        rss_mib: Resident set.
        pss_mib: The same, with shared pages counted in parts.
    """

    rss_mib: float
    pss_mib: float


def group_memory(pid: int) -> Memory:
    """Returns the memory of a process group, by its leader."""
    memory = [_memory_kib(member) for member in _group(pid)]
    return Memory(sum(m["Rss"] for m in memory) / 1024, sum(m["Pss"] for m in memory) / 1024)


def _group(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # the process has ended
            continue
        if int(fields[2]) == pid:
            found.append(int(stat.parent.name))
    return found


def _memory_kib(pid: int) -> Mapping[str, int]:
    lines = (Path("/proc") / str(pid) / SMAPS).read_text(encoding="utf-8").splitlines()[1:]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
