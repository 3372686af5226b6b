"""Progress of work in stages, such as a download: a bar on a terminal, or nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final, Literal, Protocol, TextIO

from electra_serve.runtime.background_writer import BackgroundWriter

WIDTH: Final = 30
DRAW_EVERY_S: Final = 0.1
DEFAULT_COLUMNS: Final = 80
ERASE: Final = "\r\x1b[K"  # of the current line

Unit = Literal["bytes", "shapes"]


class Progress(Protocol):
    """Receives the progress of one stage after another, on any thread."""

    def update(self, stage: str, name: str, done: int, total: int | None, unit: Unit = "bytes") -> None:
        """Reports that `done` of `total`, if known, are done of a stage, such as `fetching`, for `name`."""

    def end(self) -> None:
        """Reports the end of the stage."""


class NoProgress:
    """Shows nothing."""

    def update(self, stage: str, name: str, done: int, total: int | None, unit: Unit = "bytes") -> None:
        """See `Progress`."""

    def end(self) -> None:
        """See `Progress`."""


NO_PROGRESS: Final = NoProgress()


class ProgressBar:
    """Redraws one line on a terminal, and leaves its last state there."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn = False

    def update(self, stage: str, name: str, done: int, total: int | None, unit: Unit = "bytes") -> None:
        """See `Progress`."""
        self._stream.write(f"{ERASE}{stage} {name} {bar(done, total, unit)}")
        self._stream.flush()
        self._drawn = True

    def end(self) -> None:
        """See `Progress`."""
        if self._drawn:
            self._stream.write("\n")
            self._stream.flush()
        self._drawn = False


class TerminalWriter(BackgroundWriter):
    """Writes lines to a terminal, with the progress of a stage below them until the stage ends."""

    def __init__(self, stream: TextIO, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._line = ""  # progress; "" without a stage
        self._drawn = False  # the progress is on the last line
        self._is_open = False  # the last line is a part of a text
        self._next = 0.0
        self._drawing = threading.RLock()  # reentrant, since a finalizer may log
        super().__init__(stream)

    def write(self, text: str) -> int:
        """Queues `text`, above the progress; see `BackgroundWriter.write`."""
        with self._drawing:
            self._queue(text)
        return len(text)

    def update(self, stage: str, name: str, done: int, total: int | None, unit: Unit = "bytes") -> None:
        """See `Progress`; draws at most every `DRAW_EVERY_S`."""
        with self._drawing:
            if self._line and self._now() < self._next:
                return
            self._next = self._now() + DRAW_EVERY_S
            line = f"{stage} {name} {bar(done, total, unit)}"
            self._line = "".join(char if char.isprintable() else "?" for char in line)[: self._columns() - 1]
            self._queue("")

    def end(self) -> None:
        """See `Progress`."""
        with self._drawing:
            self._line = ""
            self._queue("")

    def _queue(self, text: str) -> None:
        erase = ERASE if self._drawn else ""
        if text:
            self._is_open = not text.endswith("\n")
        self._drawn = bool(self._line) and not self._is_open
        piece = erase + text + (self._line if self._drawn else "")
        if piece:
            super().write(piece)

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self.fileno()).columns or DEFAULT_COLUMNS
        except OSError:  # not a terminal
            return DEFAULT_COLUMNS


def bar(done: int, total: int | None, unit: Unit = "bytes") -> str:
    """Draws a bar, or only the amount if the total is unknown.

    Example:
        >>> bar(15_000_000, 30_000_000)
        '[###############               ] 15.0 of 30.0 MB'
        >>> bar(24, 24, "shapes")
        '[##############################] 24 of 24 shapes'
    """
    shown = f"{done} of {total} shapes" if unit == "shapes" else megabytes(done, total)
    if not total:
        return shown
    filled = WIDTH * min(done, total) // total
    return f"[{'#' * filled}{' ' * (WIDTH - filled)}] {shown}"


def megabytes(done: int, total: int | None) -> str:
    """Formats both in MB (10⁶ bytes)."""
    return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
