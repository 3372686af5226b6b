"""Lag of the event loop: by how much a timer of its own runs late.

A lag of seconds means that one call kept the loop, that another thread kept the GIL, or that the process was suspended.
CPU seconds distinguish them: the loop thread's grow in the first case, the process's in the first two.
The lag is known when the loop runs again; a loop that never does is for the liveness probe to see.
"""

from __future__ import annotations

import time
from typing import Final

import structlog
from prometheus_client import Histogram

from electra_serve.batching.clock import Clock, Timer

TICK_S: Final = 0.1
STALL_S: Final = 1.0  # A lag of this or more is logged: it is what a probe's default timeout allows


class EventLoopLag:
    """Measures the lag of the event loop ten times a second."""

    def __init__(self, clock: Clock, lag_s: Histogram, log: structlog.typing.FilteringBoundLogger) -> None:
        self._clock = clock
        self._lag_s = lag_s
        self._log = log
        self._timer: Timer | None = None
        self._due = 0.0
        self._loop_cpu_s = 0.0
        self._process_cpu_s = 0.0

    def start(self) -> None:
        """Schedules the next tick; call it on the event loop."""
        self._due = self._clock.now() + TICK_S
        self._loop_cpu_s, self._process_cpu_s = time.thread_time(), time.process_time()
        self._timer = self._clock.call_later(TICK_S, self._tick)

    def stop(self) -> None:
        """Ends the ticks."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        lag_s = max(self._clock.now() - self._due, 0.0)
        self._lag_s.observe(lag_s)
        if lag_s >= STALL_S:
            self._log.error(
                "event loop stalled",
                seconds=round(lag_s, 2),
                loop_cpu_seconds=round(time.thread_time() - self._loop_cpu_s, 2),
                process_cpu_seconds=round(time.process_time() - self._process_cpu_s, 2),
            )
        self.start()
