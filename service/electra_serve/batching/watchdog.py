"""Checks a model's engines twice a second: their threads must be alive and their batches must end in time.

An engine that stays stalled for `hang_timeout_s` has failed, since native code that hangs cannot be stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from electra_serve.batching.clock import Clock, Timer
from electra_serve.batching.engine_worker import EngineWorker

CHECK_S: Final = 0.5


@dataclass(slots=True)
class StallDetector:
    """Decides when a stalled engine has failed."""

    timeout_s: float
    stalled_s: float = 0.0  # counted in checks: a suspended process must not count its pause

    def check(self, *, stalled: bool, since_s: float) -> bool:
        """Records one check and returns True once the engine has been stalled for more than `timeout_s`.

        Example:
            >>> detector = StallDetector(timeout_s=1.0)
            >>> [detector.check(stalled=now, since_s=0.5) for now in (True, True, False, True, True, True)]
            [False, False, False, False, False, True]
        """
        self.stalled_s = self.stalled_s + since_s if stalled else 0.0
        return self.stalled_s > self.timeout_s


class Watchdog:
    """Runs the checks on the event loop. The liveness probe detects an event loop that hangs."""

    def __init__(
        self,
        workers: Sequence[EngineWorker],
        hang_timeout_s: float,
        clock: Clock,
        *,
        stalled: Callable[[bool], None],  # called with True for a first stalled engine, with False after the last
        failed: Callable[[str], None],  # called once, with the reason; the checks then end
    ) -> None:
        self._workers = workers
        self._detectors = [StallDetector(hang_timeout_s) for _ in workers]
        self._clock = clock
        self._notify_stalled = stalled
        self._notify_failed = failed
        self._timer: Timer | None = None
        self._due = 0.0

    def start(self) -> None:
        """Schedules the next check."""
        self._due = self._clock.now() + CHECK_S
        self._timer = self._clock.call_later(CHECK_S, self._check)

    def stop(self) -> None:
        """Ends the checks."""
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        late_s = max(self._clock.now() - self._due, 0.0)
        for worker in self._workers:
            worker.discount(late_s)  # the event loop stalled: the result may already wait for it
        was_stalled = any(detector.stalled_s for detector in self._detectors)
        timed_out = [
            detector.check(stalled=worker.stalled, since_s=CHECK_S)
            for detector, worker in zip(self._detectors, self._workers, strict=True)
        ]
        stalled = any(detector.stalled_s for detector in self._detectors)
        if not all(worker.alive for worker in self._workers):
            self._notify_failed("an engine's thread has ended")
        elif any(timed_out):
            self._notify_failed("an engine hangs")
        else:
            if stalled != was_stalled:
                self._notify_stalled(stalled)
            self.start()
