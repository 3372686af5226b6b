"""Garbage collection, and return of freed memory to the system.

Objects of the start are frozen, since a full collection of them blocks requests for tens of milliseconds. After a model
is unloaded, everything is collected once, as models have reference cycles.
glibc keeps freed memory; `trim` returns it. A trim holds the lock of one arena at a time, not the GIL.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Callable, Mapping
from mmap import PAGESIZE
from pathlib import Path
from typing import Final

from electra_serve.runtime.daemon_thread import run_in_daemon_thread

_C: Final = ctypes.CDLL(None)  # the process and its C library
_STATM: Final = Path("/proc/self/statm")
_M_ARENA_MAX: Final = -8
_ARENA_VARIABLES: Final = ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")
TRIM_EVERY_S: Final = 20.0
TRIM_SLACK_BYTES: Final = 32 * 2**20  # growth that the C library keeps for the next requests


def use_one_arena(environment: Mapping[str, str]) -> None:
    """Makes all threads share one glibc arena, unless `environment` sets their number; call it before threads start.

    Otherwise each of up to 8 arenas per core keeps the memory of its largest burst of gRPC messages.
    """
    if hasattr(_C, "mallopt") and not any(name in environment for name in _ARENA_VARIABLES):
        _C.mallopt(_M_ARENA_MAX, 1)


def freeze_startup_objects() -> None:
    """Excludes all present objects from garbage collection."""
    gc.collect()
    gc.freeze()


def collect_and_trim() -> None:
    """Collects all garbage, frozen objects included, and trims."""
    gc.unfreeze()
    freeze_startup_objects()
    trim()


def trim() -> None:
    """Returns every unused page to the system, without the GIL."""
    if hasattr(_C, "malloc_trim"):  # glibc
        _C.malloc_trim(0)


def resident_bytes() -> int:
    """Returns the bytes of the process in RAM; 0 on systems without proc(5)."""
    try:
        return int(_STATM.read_text().split()[1]) * PAGESIZE
    except OSError:
        return 0


class MemoryTrimmer:
    """Trims when the process has grown, at most every 20 s.

    The reference is its least memory since it was ready, or since the last change of a model. So memory that one trim
    finds in use is returned by a later one. `resident`, `trim` and `collect_and_trim` are arguments for tests.
    """

    def __init__(
        self,
        *,
        resident: Callable[[], int] = resident_bytes,
        trim: Callable[[], None] = trim,
        collect_and_trim: Callable[[], None] = collect_and_trim,
    ) -> None:
        self._resident = resident
        self._trim = trim
        self._collect_and_trim = collect_and_trim
        self._least_bytes = 0

    def settle(self) -> None:
        """Makes the present memory the reference."""
        self._least_bytes = self._resident()

    def collect_and_trim(self) -> None:
        """Frees the memory of a removed model, and resets the reference."""
        self._collect_and_trim()
        self.settle()

    async def run(self) -> None:
        """Trims if the process has grown, until it is canceled."""
        while True:
            await asyncio.sleep(TRIM_EVERY_S)
            await self.trim_if_grown()

    async def trim_if_grown(self) -> None:
        """Trims on a thread if the process has grown by more than `TRIM_SLACK_BYTES`."""
        if self._resident() > self._least_bytes + TRIM_SLACK_BYTES:
            await run_in_daemon_thread(self._trim)
        self._least_bytes = min(self._least_bytes, self._resident())
