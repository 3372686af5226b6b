"""Checks a model's engines twice a second: that their threads live and that their batches end in time.

An engine that stays stalled for `hang_timeout_s` has failed: native code that never returns cannot be stopped.
The time is counted in checks, not read from a clock: a process that was suspended for a minute must not
count that minute. The time by which a check runs late is not counted against the batch that runs either. The event
loop stalled then, so a result may already wait for it; `server.event_loop` reports that stall.
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
    """Decides when a stalled engine has failed.

    Attributes:
        timeout_s: Seconds that an engine may be stalled.
        stalled_s: Seconds that it has been stalled so far.
    """

    timeout_s: float
    stalled_s: float = 0.0

    def check(self, *, stalled: bool, since_s: float) -> bool:
        """Records one check.

        Args:
            stalled: The engine is stalled now.
            since_s: Seconds since the previous check.

        Returns:
            True once the engine has been stalled for more than `timeout_s`.

        Example:
            >>> detector = StallDetector(timeout_s=1.0)
            >>> [detector.check(stalled=now, since_s=0.5) for now in (True, True, False, True, True, True)]
            [False, False, False, False, False, True]
        """
        self.stalled_s = self.stalled_s + since_s if stalled else 0.0
        return self.stalled_s > self.timeout_s


class Watchdog:
    """Runs on the event loop, so it sees engines only; a loop that hangs is for the liveness probe to see.

    Args:
        workers: One per engine.
        hang_timeout_s: Seconds that an engine may be stalled.
        clock: Schedules the checks.
        stalled: Called with True when an engine stalls, and with False when none is stalled any more.
        failed: Called once, with the reason, when an engine has failed; the checks end with it.
    """

    def __init__(
        self,
        workers: Sequence[EngineWorker],
        hang_timeout_s: float,
        clock: Clock,
        *,
        stalled: Callable[[bool], None],
        failed: Callable[[str], None],
    ) -> None:
        self._workers = workers
        self._detectors = [StallDetector(hang_timeout_s) for _ in workers]
        self._clock = clock
        self._notify_stalled = stalled
        self._notify_failed = failed
        self._timer: Timer | None = None
        self._due = 0.0

    def start(self) -> None:
        """Schedules the next check, half a second from now."""
        self._due = self._clock.now() + CHECK_S
        self._timer = self._clock.call_later(CHECK_S, self._check)

    def stop(self) -> None:
        """Ends the checks."""
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        late_s = max(self._clock.now() - self._due, 0.0)
        for worker in self._workers:
            worker.discount(late_s)
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
