"""Progress of a download without a terminal: a line in the log every ten seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from electra_serve.runtime.progress import Unit, megabytes

EVERY_S: Final = 10.0


class ProgressLog:
    """Logs a line every `EVERY_S` seconds of the clock `now`; see `electra_serve.runtime.progress.Progress`."""

    def __init__(self, log: logging.Logger, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._now = now
        self._next = 0.0

    def update(self, stage: str, name: str, done: int, total: int | None, unit: Unit = "bytes") -> None:  # noqa: ARG002
        """Reports bytes of a stage."""
        if self._now() >= self._next:
            self._next = self._now() + EVERY_S
            self._log.info("%s %s: %s", stage, name, megabytes(done, total))

    def end(self) -> None:
        """Reports the end of the stage."""
        self._next = 0.0
