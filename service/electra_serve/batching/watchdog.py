"""Looks at a model's engines twice a second: whether their threads live, and whether their batches end in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from electra_serve.batching.clock import Clock, Timer
from electra_serve.batching.engine_worker import EngineRunner
from electra_serve.batching.patience import Patience

LOOK_S: Final = 0.5


class Watchdog:
    """Runs on the event loop, so it sees engines only; a loop that hangs is for the liveness probe to see.

    Args:
        runners: The engines.
        hang_timeout_s: How long one that is late is waited for.
        clock: Says when to look again.
        late: Called when an engine is late, and again when none is any more.
        lost: Called once, with the reason, when an engine will not come back; nothing is looked at after that.
    """

    def __init__(
        self,
        runners: Sequence[EngineRunner],
        hang_timeout_s: float,
        clock: Clock,
        *,
        late: Callable[[bool], None],
        lost: Callable[[str], None],
    ) -> None:
        self._runners = runners
        self._patience = [Patience(hang_timeout_s) for _ in runners]
        self._clock = clock
        self._tell_late = late
        self._tell_lost = lost
        self._timer: Timer | None = None

    def start(self) -> None:
        """Looks for the first time, half a second from now."""
        self._timer = self._clock.call_later(LOOK_S, self._look)

    def stop(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        was_late = any(patience.late_s for patience in self._patience)
        looks = [
            patience.look(late=runner.late, since_s=LOOK_S)
            for patience, runner in zip(self._patience, self._runners, strict=True)
        ]
        late = any(patience.late_s for patience in self._patience)
        if not all(runner.alive for runner in self._runners):
            self._tell_lost("an engine's thread has ended")
        elif any(looks):
            self._tell_lost("an engine hangs")
        else:
            if late != was_late:
                self._tell_late(late)
            self.start()
