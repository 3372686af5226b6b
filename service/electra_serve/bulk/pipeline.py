"""Runs windows through a model: one thread reads, tokenizes and packs while the engines compute earlier windows."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from queue import Empty, Full, Queue
from typing import Final

from electra_serve.bulk.encoder import Encoded, Encoder
from electra_serve.bulk.engines import Computed
from electra_serve.bulk.reading import Position, Reader
from electra_serve.bulk.windows import Window, WindowLimits, cut_windows

WINDOWS_AHEAD: Final = 2  # that wait for the engines, besides the one that is prepared and the one that is written
POLL_S: Final = 0.2  # delay after which a signal is seen
_Item = tuple[Window, Computed] | BaseException | None  # None at the end


class Pipeline:
    """Yields the windows of an input in order, with their outputs.

    Args:
        encoder: Encodes them.
        reader: Reads the input.
        limits: Sizes of windows and shards.
    """

    def __init__(self, encoder: Encoder, reader: Reader, limits: WindowLimits) -> None:
        self._encoder = encoder
        self._reader = reader
        self._limits = limits
        self._queue: Queue[_Item] = Queue(WINDOWS_AHEAD)
        self._stopping = threading.Event()

    def run(self, start: Position, first_row: int) -> Iterator[tuple[Window, Encoded] | None]:
        """Yields windows from a position on, and None while none is ready; raises what the thread raised."""
        thread = threading.Thread(target=self._prepare, args=(start, first_row), name="bulk-reader", daemon=True)
        thread.start()
        try:
            while True:
                try:
                    item = self._queue.get(timeout=POLL_S)
                except Empty:
                    yield None
                    continue
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                window, computed = item
                while not computed.wait(POLL_S):
                    yield None
                yield window, self._encoder.finish(window, computed)
        finally:
            self._stopping.set()
            thread.join(POLL_S)  # it may wait for standard input

    def _prepare(self, start: Position, first_row: int) -> None:
        """Runs on the thread."""
        chunks = self._reader.read(start, first_row)
        try:
            windows = cut_windows(chunks, self._encoder.prepare, self._encoder.outputs.weigh, self._limits, first_row)
            for window in windows:
                if not self._put((window, self._encoder.submit(window))):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001  # raised by `run`
            self._put(error)
        finally:
            with contextlib.suppress(ValueError):
                chunks.close()  # type: ignore[attr-defined]  # a generator

    def _put(self, item: _Item) -> bool:
        """Queues an item; returns False if the run has stopped."""
        while not self._stopping.is_set():
            try:
                self._queue.put(item, timeout=POLL_S)
            except Full:
                continue
            return True
        return False
