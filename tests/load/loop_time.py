"""CPU time that single callbacks take on the event loop.

Other processes and other threads do not count: it is the CPU time of the loop's thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class LoopTime:
    """Callbacks that ran within `measured`.

    Attributes:
        longest_s: CPU seconds of the longest one.
        total_s: CPU seconds of all.
        callbacks: Number of callbacks.
    """

    longest_s: float = 0.0
    total_s: float = 0.0
    callbacks: int = 0

    def add(self, seconds: float) -> None:
        """Adds one callback."""
        self.longest_s = max(self.longest_s, seconds)
        self.total_s += seconds
        self.callbacks += 1


@contextmanager
def measured() -> Iterator[LoopTime]:
    """Measures each callback that asyncio's own event loop runs on the current thread."""
    thread, run, found = threading.get_ident(), asyncio.Handle._run, LoopTime()

    def timed_run(handle: asyncio.Handle) -> None:
        if threading.get_ident() != thread:
            run(handle)
            return
        began = time.thread_time()
        run(handle)
        found.add(time.thread_time() - began)

    asyncio.Handle._run = timed_run  # type: ignore[assignment, method-assign]
    try:
        yield found
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
