"""Text stream that a daemon thread writes, so that a stalled reader blocks nothing else.

`write` puts text into a bounded queue; pieces over the limit are dropped and counted. `SimpleQueue.put` is reentrant,
so a finalizer may log during a `put`, and takes a tenth of the time of `queue.Queue`.
The thread writes to the descriptor: blocked in a buffered stream, it would hold a lock that the interpreter needs at
exit.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final, TextIO

MAX_PIECES: Final = 4096  # about a megabyte of log lines
MAX_PIECES_PER_WRITE: Final = 256
# Time for further lines to arrive before a write: at most 200 writes a second compete with the event loop
GATHER_S: Final = 0.005


class BackgroundWriter(io.TextIOBase):
    """Writes to `stream` from a daemon thread; at most `max_pieces` calls of `write` are queued."""

    def __init__(self, stream: TextIO, *, max_pieces: int = MAX_PIECES) -> None:
        self._stream = stream
        self._max_pieces = max_pieces
        self._write_out = _sink(stream)
        self._pieces: SimpleQueue[str | threading.Event] = SimpleQueue()
        self._lock = threading.RLock()  # reentrant, like the queue
        self._dropped = 0
        self._reported = 0
        self._report: Callable[[int], None] = lambda _: None
        threading.Thread(target=self._run, name="background-writer", daemon=True).start()

    @property
    def dropped(self) -> int:
        """Number of pieces dropped or not written."""
        return self._dropped

    def notify(self, when_dropped: Callable[[int], None]) -> None:
        """Has `when_dropped` called on the thread with the number of dropped pieces, once writes succeed again."""
        self._report = when_dropped

    def write(self, text: str) -> int:
        """Queues `text`, or drops it if the limit is reached; never blocks."""
        if self._pieces.qsize() < self._max_pieces:
            self._pieces.put(text)
        else:
            self._drop(1)
        return len(text)

    def wait_written(self, within_s: float) -> bool:
        """Waits until all queued text is written; returns False after `within_s`."""
        written = threading.Event()
        self._pieces.put(written)
        return written.wait(within_s)

    def isatty(self) -> bool:
        """Returns True if the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Returns the stream's descriptor, for child processes that inherit it."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Returns True."""
        return True

    def _drop(self, pieces: int) -> None:
        with self._lock:
            self._dropped += pieces

    def _run(self) -> None:
        while True:
            taken = self._take()
            lines = [piece for piece in taken if isinstance(piece, str)]
            if self._try_to_write(lines):
                self._report_dropped()
            for piece in taken:
                if isinstance(piece, threading.Event):
                    piece.set()

    def _take(self) -> Sequence[str | threading.Event]:
        """Waits for a piece, and takes those that follow it shortly."""
        taken = [self._pieces.get()]
        if isinstance(taken[0], str):
            time.sleep(GATHER_S)
        with contextlib.suppress(Empty):
            while len(taken) < MAX_PIECES_PER_WRITE:
                taken.append(self._pieces.get_nowait())
        return taken

    def _try_to_write(self, lines: Sequence[str]) -> bool:
        try:
            self._write_out("".join(lines))
        except (OSError, ValueError):  # a full disk, a reader that has closed its end, a closed stream
            self._drop(len(lines))
            return False
        return True

    def _report_dropped(self) -> None:
        """Reports drops since the last report, unless the queue is over half full."""
        dropped = self._dropped
        if dropped > self._reported and self._pieces.qsize() <= self._max_pieces // 2:
            self._report(dropped - self._reported)
            self._reported = dropped


def _sink(stream: TextIO) -> Callable[[str], None]:
    """Returns a function that writes a text to the stream's descriptor, or to the stream if it has none."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):  # `io.UnsupportedOperation` is the first two
        return lambda text: _write_to_stream(stream, text)
    encoding = stream.encoding or "utf-8"
    return lambda text: _write_to_descriptor(descriptor, text.encode(encoding, "backslashreplace"))


def _write_to_stream(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


def _write_to_descriptor(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # another process has made it non-blocking
            select.select([], [descriptor], [])
