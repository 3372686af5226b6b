"""What a process holds, as the kernel tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look at a process.

    Attributes:
        memory_mb: Resident, in 10⁶ bytes.
        threads: How many it has.
        descriptors: How many files and sockets are open.
    """

    memory_mb: float
    threads: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Vitals:
        """Looks at a process."""
        process = Path("/proc") / str(pid)
        status = (process / "status").read_text()
        return cls(
            memory_mb=_number(status, "VmRSS") * 1024 / 1e6,
            threads=_number(status, "Threads"),
            descriptors=len(list((process / "fd").iterdir())),
        )


def _number(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    assert found is not None, name
    return int(found[1])
