"""What the garbage collector need not look at, when it must all the same, and what goes back to the machine.

What is loaded at start stays, so the collector is told to pass over it: walking through it takes tens of milliseconds
in which requests wait. But what it passes over it never frees, and models have cycles. So when a model goes,
everything is looked at once.

What is freed then is still the process's: the C library keeps it for what comes next, in as many arenas as threads have
needed, and the next model's pieces fit between the last one's only by and by. glibc can be asked to give back every
page that holds nothing, which takes some milliseconds. Other C libraries are left alone.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_C: Final = ctypes.CDLL(None)
"""The process itself, and with it the C library it runs on."""


def freeze_startup_objects() -> None:
    """Has the collector pass over all there is now."""
    gc.collect()
    gc.freeze()


def collect_and_trim() -> None:
    """Frees what nobody refers to any more, wherever it came from, and gives the machine what is then unused."""
    gc.unfreeze()
    freeze_startup_objects()
    if hasattr(_C, "malloc_trim"):  # glibc
        _C.malloc_trim(0)
