"""The batcher's only source of time, so that tests own it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Something due later."""

    def cancel(self) -> None:
        """Makes it never happen, if it has not yet."""


class Clock(Protocol):
    """Tells the time and calls back later, both in seconds of a clock that never goes back."""

    def now(self) -> float:
        """Seconds since some fixed moment."""

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Calls `callback` once, `delay_s` from now, on the event loop."""


class LoopClock:
    """The running event loop's clock."""

    def now(self) -> float:
        """`time.monotonic()`, which asyncio's loops run by."""
        return time.monotonic()

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """As the loop does."""
        return asyncio.get_running_loop().call_later(delay_s, callback)
