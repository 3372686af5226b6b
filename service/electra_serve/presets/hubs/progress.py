"""Progress of a download: a bar on a terminal, or a line in the log every ten seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, Protocol, TextIO

WIDTH: Final = 30
EVERY_S: Final = 10.0


class Progress(Protocol):
    """Receives the progress of one fetch after another."""

    def update(self, name: str, done: int, total: int | None) -> None:
        """Reports that `done` of `total` bytes, if known, were fetched."""

    def end(self) -> None:
        """Reports the end of the fetch."""


class ProgressBar:
    """Redraws one line on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn = False

    def update(self, name: str, done: int, total: int | None) -> None:
        """See `Progress`."""
        self._stream.write(f"\r\x1b[K{name} {bar(done, total)}")
        self._stream.flush()
        self._drawn = True

    def end(self) -> None:
        """See `Progress`."""
        if self._drawn:
            self._stream.write("\n")
            self._stream.flush()
        self._drawn = False


class ProgressLog:
    """Logs a line every `EVERY_S` seconds of the clock `now`."""

    def __init__(self, log: logging.Logger, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._now = now
        self._next = 0.0

    def update(self, name: str, done: int, total: int | None) -> None:
        """See `Progress`."""
        if self._now() >= self._next:
            self._next = self._now() + EVERY_S
            self._log.info("fetching %s: %s", name, megabytes(done, total))

    def end(self) -> None:
        """See `Progress`."""
        self._next = 0.0


def bar(done: int, total: int | None) -> str:
    """Draws a bar, or only the size if the total is unknown.

    Example:
        >>> bar(15_000_000, 30_000_000)
        '[###############               ] 15.0 of 30.0 MB'
    """
    if not total:
        return megabytes(done, total)
    filled = WIDTH * min(done, total) // total
    return f"[{'#' * filled}{' ' * (WIDTH - filled)}] {megabytes(done, total)}"


def megabytes(done: int, total: int | None) -> str:
    """Formats both in MB (10⁶ bytes)."""
    return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
