"""How far a download is: a bar for a person at a terminal, a line now and then for a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, Protocol, TextIO

WIDTH: Final = 30
EVERY_S: Final = 10.0
"""Seconds between two lines of a log."""


class Progress(Protocol):
    """Is told how far a fetch is."""

    def update(self, name: str, done: int, total: int | None) -> None:
        """`done` of `total` bytes of `name` are there; the total may not be known."""

    def end(self) -> None:
        """The fetch is over, well or not."""


class ProgressBar:
    """Redraws one line.

    Args:
        stream: A terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn = False

    def update(self, name: str, done: int, total: int | None) -> None:
        """See `Progress.update`."""
        self._stream.write(f"\r\x1b[K{name} {bar(done, total)}")
        self._stream.flush()
        self._drawn = True

    def end(self) -> None:
        """See `Progress.end`."""
        if self._drawn:
            self._stream.write("\n")
            self._stream.flush()
        self._drawn = False


class ProgressLog:
    """Logs a line every `EVERY_S` seconds.

    Args:
        log: Where.
        now: Seconds of a clock that never goes back.
    """

    def __init__(self, log: logging.Logger, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._now = now
        self._next = 0.0

    def update(self, name: str, done: int, total: int | None) -> None:
        """See `Progress.update`."""
        if self._now() >= self._next:
            self._next = self._now() + EVERY_S
            self._log.info("fetching %s: %s", name, megabytes(done, total))

    def end(self) -> None:
        """See `Progress.end`."""
        self._next = 0.0


def bar(done: int, total: int | None) -> str:
    """A bar in characters, without one where the total is not known.

    Example:
        >>> bar(15_000_000, 30_000_000)
        '[###############               ] 15.0 of 30.0 MB'
        >>> bar(15_000_000, None)
        '15.0 MB'
    """
    if not total:
        return megabytes(done, total)
    filled = WIDTH * min(done, total) // total
    return f"[{'#' * filled}{' ' * (WIDTH - filled)}] {megabytes(done, total)}"


def megabytes(done: int, total: int | None) -> str:
    """Both in MB (10⁶ bytes)."""
    return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
