"""Source of time for the batcher; tests replace it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Handle of a scheduled callback."""

    def cancel(self) -> None:
        """Cancels the callback if it has not run."""


class Clock(Protocol):
    """Monotonic time in seconds, and callbacks on the event loop."""

    def now(self) -> float:
        """Returns seconds since a fixed moment."""

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Calls `callback` once on the event loop, after `delay_s` seconds."""


class LoopClock:
    """The running event loop's clock."""

    def now(self) -> float:
        """Returns `time.monotonic()`, the clock of asyncio's event loops."""
        return time.monotonic()

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Schedules on the running event loop."""
        return asyncio.get_running_loop().call_later(delay_s, callback)
