"""Growth of a process under a steady load, from samples of memory, threads, descriptors and compilations.

Caches fill and allocators settle in the first half. From mid-run on, memory may grow by less than `MOST_GROWTH_BYTES`,
and threads, descriptors and compilations not at all. Memory, threads and descriptors come and go with requests and
models, so the medians of the third and the fourth quarter are compared. Steady growth from mid-run to the end is twice
their difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, Self

from tests.integration.process import ServiceProcess

MOST_GROWTH_BYTES: Final = 50_000_000
SPARE_THREADS: Final = 2
"""A pool that meets its largest burst late grows by some threads once."""
SPARE_DESCRIPTORS: Final = 12
"""Number of clients: connections that happen to be open."""
LEAST_SAMPLES: Final = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """Resources of a process at one time.

    Attributes:
        resident_bytes: Memory.
        threads: Threads.
        descriptors: Open files and sockets.
        compilations: Compilations of the models after warm-up.
    """

    resident_bytes: float
    threads: float
    descriptors: float
    compilations: float

    @classmethod
    def of(cls, pid: int, compilations: float) -> Self:
        """Samples a process on this machine, by Linux' proc(5)."""
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        resident_bytes = int(status["VmRSS"].split()[0]) * 1024
        return cls(resident_bytes, int(status["Threads"]), descriptors, compilations)


def resident_bytes(process: ServiceProcess) -> float:
    """Returns the memory of a service's process."""
    return Sample.of(process.popen.pid, compilations=0).resident_bytes


def descriptors(process: ServiceProcess) -> float:
    """Returns the number of files and sockets that a service's process has open."""
    return Sample.of(process.popen.pid, compilations=0).descriptors


@dataclass(frozen=True, slots=True)
class Growth:
    """Growth from mid-run to the end.

    Attributes:
        resident_bytes: Memory.
        threads: Threads.
        descriptors: Open files and sockets.
        compilations: Compilations of the models.
    """

    resident_bytes: float
    threads: float
    descriptors: float
    compilations: float

    @classmethod
    def over(cls, samples: Sequence[Sample]) -> Self:
        """Compares the second half of `samples` with its own beginning.

        Raises:
            ValueError: Fewer than `LEAST_SAMPLES`.

        Example:
            >>> steady = [Sample(100e6, 20, 30, 0)] * 12
            >>> Growth.over(steady)
            Growth(resident_bytes=0.0, threads=0.0, descriptors=0.0, compilations=0)
            >>> leaking = [Sample(100e6 + 10e6 * i, 20, 30 + i, 0) for i in range(12)]
            >>> Growth.over(leaking).resident_bytes, Growth.over(leaking).faults()
            (60000000.0, ['memory grew by 60 MB'])
        """
        if len(samples) < LEAST_SAMPLES:
            raise ValueError(f"at least {LEAST_SAMPLES} samples are needed; received {len(samples)}")
        middle = len(samples) // 2
        quarter = (len(samples) + middle) // 2
        third, fourth = samples[middle:quarter], samples[quarter:]
        return cls(
            resident_bytes=2 * _gained("resident_bytes", third, fourth),
            threads=_gained("threads", third, fourth),
            descriptors=_gained("descriptors", third, fourth),
            compilations=samples[-1].compilations - samples[middle].compilations,
        )

    def faults(self) -> list[str]:
        """Returns what has grown over its limit."""
        checks = (
            (self.resident_bytes < MOST_GROWTH_BYTES, f"memory grew by {self.resident_bytes / 1e6:.0f} MB"),
            (self.threads <= SPARE_THREADS, f"{self.threads:g} threads came"),
            (self.descriptors <= SPARE_DESCRIPTORS, f"{self.descriptors:g} descriptors came"),
            (self.compilations == 0, f"{self.compilations:g} compilations came"),
        )
        return [fault for well, fault in checks if not well]


def _gained(name: str, before: Sequence[Sample], after: Sequence[Sample]) -> float:
    first, last = (float(median(getattr(sample, name) for sample in samples)) for samples in (before, after))
    return last - first
