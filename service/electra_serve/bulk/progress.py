"""Progress of a run: a bar on a terminal, or log lines elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TextIO

import structlog
from tqdm import tqdm

EVERY_S: Final = 10.0  # between log lines
_COLUMNS: Final = 80  # of a terminal that does not know its size
_ROWS: Final = 24


@dataclass(frozen=True, slots=True)
class Done:
    """State of a run; `rows_before` were encoded by earlier ones."""

    rows: int
    tokens: int  # of this run
    rejected: int
    total_rows: int | None  # estimated if the format does not know it
    rows_before: int = 0


class Progress(Protocol):
    """Receives the state after each window."""

    def update(self, done: Done) -> None:
        """Shows the state."""

    def close(self) -> None:
        """Ends the display."""


class Speed:
    """Rates since the first update's start."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._started = now()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return max(self._now() - self._started, 1e-9)

    def tokens_per_s(self, done: Done) -> float:
        """Returns real tokens per second."""
        return done.tokens / self.elapsed_s

    def left_s(self, done: Done) -> float | None:
        """Returns the estimated seconds until the end; None if they are unknown."""
        encoded = done.rows - done.rows_before
        if done.total_rows is None or encoded <= 0:
            return None
        return max(done.total_rows - done.rows, 0) * self.elapsed_s / encoded


class ProgressBar:
    """Draws a bar with rows, time left and tokens per second."""

    def __init__(self, stream: TextIO, rows_before: int = 0) -> None:
        self._speed = Speed()
        shown = {"dynamic_ncols": True} if _columns(stream) else {"ncols": _COLUMNS, "nrows": _ROWS}
        self._bar = tqdm(file=stream, unit=" rows", unit_scale=True, initial=rows_before, **shown)

    def update(self, done: Done) -> None:
        """See `Progress`."""
        if done.total_rows is not None:
            self._bar.total = max(done.total_rows, done.rows)
        self._bar.set_postfix_str(_postfix(done, self._speed), refresh=False)
        self._bar.update(done.rows - self._bar.n)

    def close(self) -> None:
        """See `Progress`."""
        self._bar.close()


def _columns(stream: TextIO) -> int:
    """Returns the width of a terminal; 0 if it does not know its size, as some in containers."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0


def _postfix(done: Done, speed: Speed) -> str:
    rejected = f", {done.rejected:,} rejected" if done.rejected else ""
    return f"{speed.tokens_per_s(done):,.0f} tokens/s{rejected}"


class ProgressLog:
    """Logs a line every `EVERY_S` seconds."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._speed = Speed(now)
        self._next_s = EVERY_S

    def update(self, done: Done) -> None:
        """See `Progress`."""
        if self._speed.elapsed_s < self._next_s:
            return
        self._next_s = self._speed.elapsed_s + EVERY_S
        left_s = self._speed.left_s(done)
        self._log.info(
            "rows encoded",
            rows=done.rows,
            total_rows=done.total_rows,
            rejected=done.rejected,
            tokens_per_s=round(self._speed.tokens_per_s(done)),
            left_s=None if left_s is None else round(left_s),
        )

    def close(self) -> None:
        """See `Progress`."""
