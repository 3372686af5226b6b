"""What the garbage collector need not look at, when it must all the same, and what goes back to the machine.

What is loaded at start stays, so the collector is told to pass over it: walking through it takes tens of milliseconds
in which requests wait. But what it passes over it never frees, and models have cycles. So when a model goes,
everything is looked at once.

What is freed then is still the process's: the C library keeps it for what comes next, in as many arenas as threads have
needed, and the next model's pieces fit between the last one's only by and by. glibc can be asked to give back every
page that holds nothing, which takes some milliseconds. Other C libraries are left alone.

Large responses leave such pages too. `MemoryTrimmer` gives them back while the process serves. A trim holds the lock of
one arena at a time, not the GIL: what allocates from the event loop's arena meanwhile waits for 7 ms per 100 MB that
are given back, and for 1 to 4 ms if there is nothing to give.
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

_C: Final = ctypes.CDLL(None)
"""The process itself, and with it the C library it runs on."""
_STATM: Final = Path("/proc/self/statm")
_M_ARENA_MAX: Final = -8
_ARENA_VARIABLES: Final = ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")
TRIM_EVERY_S: Final = 20.0
TRIM_SLACK_BYTES: Final = 32 * 2**20
"""Growth that is left to the C library, which would take it again for the next requests."""


def use_one_arena(environment: Mapping[str, str]) -> None:
    """Makes all threads share one arena of glibc's, unless `environment` sets their number.

    gRPC's threads allocate the pieces of a message and the event loop frees them, so each of up to 8 arenas per core
    keeps the memory of its largest burst. Has to be called before threads start.
    """
    if hasattr(_C, "mallopt") and not any(name in environment for name in _ARENA_VARIABLES):
        _C.mallopt(_M_ARENA_MAX, 1)


def freeze_startup_objects() -> None:
    """Has the collector pass over all there is now."""
    gc.collect()
    gc.freeze()


def collect_and_trim() -> None:
    """Frees what nobody refers to any more, wherever it came from, and gives the machine what is then unused."""
    gc.unfreeze()
    freeze_startup_objects()
    trim()


def trim() -> None:
    """Gives the machine every page that holds nothing. The GIL is free meanwhile."""
    if hasattr(_C, "malloc_trim"):  # glibc
        _C.malloc_trim(0)


def resident_bytes() -> int:
    """Memory of the process that is in RAM; 0 on systems without proc(5)."""
    try:
        return int(_STATM.read_text().split()[1]) * PAGESIZE
    except OSError:
        return 0


class MemoryTrimmer:
    """Trims when the process holds more than it did, at most every 20 s.

    The reference is the least that it has held since it was ready or a model was last changed. So memory that is in use
    at one trim is given back by a later one.

    Args:
        resident: Reads the memory of the process in bytes.
        trim: Gives back what is unused; runs on a thread.
        collect_and_trim: Does so after a model was changed; runs on the event loop.
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
        """Takes the present memory for the reference."""
        self._least_bytes = self._resident()

    def collect_and_trim(self) -> None:
        """Frees what a model leaves behind, and takes what remains for the reference."""
        self._collect_and_trim()
        self.settle()

    async def run(self) -> None:
        """Trims when that is due, until it is cancelled."""
        while True:
            await asyncio.sleep(TRIM_EVERY_S)
            await self.trim_if_grown()

    async def trim_if_grown(self) -> None:
        """Trims on a thread if the process has grown by more than `TRIM_SLACK_BYTES`."""
        if self._resident() > self._least_bytes + TRIM_SLACK_BYTES:
            await run_in_daemon_thread(self._trim)
        self._least_bytes = min(self._least_bytes, self._resident())
