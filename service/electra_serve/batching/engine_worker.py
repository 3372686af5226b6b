"""Runs one engine on one thread, with at most two batches in flight: one that runs, and a packed one.

The second is requested shortly before the expected end of the first. Earlier, it would be planned from fewer sequences;
later, the engine would idle while the event loop plans.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from electra_serve.batching.clock import Clock, Timer
from electra_serve.engine.base import Engine
from electra_serve.runtime.daemon_thread import mark_abandoned
from electra_serve.tensors import (
    ENGINE_OUTPUTS,
    POSITION_OUTPUTS,
    Batch,
    Float32Array,
    ModelOutput,
    Output,
    Outputs,
    Placement,
)

LEAD_S: Final = 0.002  # time to plan and pack the next batch on a busy event loop
# Batches may end after this part of their expected time. A late start idles the engine, an early one costs little:
# most sequences arrive when the batch before gets its results.
EARLY: Final = 0.8
MAX_IN_FLIGHT: Final = 2
STALL_FACTOR: Final = 10.0
MAX_STALL_S: Final = 1.5
# Slack for a throttled CPU. With the watchdog's half second, a hanging engine is detected within 5 s.
STALL_SLACK_S: Final = 2.5


@dataclass(frozen=True, slots=True, eq=False)
class BatchResult:
    """Outputs of a batch that ran."""

    output: ModelOutput
    finite: NDArray[np.bool_]  # (N,), True for sequences whose outputs are all finite
    seconds: float  # duration of the engine's run


# called with the result of a batch, or with what the engine raised
Done: TypeAlias = Callable[[BatchResult | BaseException], None]
Work: TypeAlias = Callable[[], None]


class EngineThread:
    """Runs work in order on one daemon thread, which reports its end and does not block the interpreter's exit."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """True until the thread has ended."""
        return self._thread.is_alive()

    def submit(self, work: Work) -> None:
        """Queues `work`, which must not raise."""
        self._work.put(work)

    def close(self) -> None:
        """Ends the thread after the queued work."""
        self._work.put(None)

    def abandon(self) -> None:
        """Ends the thread if its work ever returns; until then the interpreter must not finalize it."""
        mark_abandoned(self._thread)
        self.close()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


class EngineWorker:
    """Runs one engine's batches, in order, on one thread.

    It uses callbacks, not coroutines: a batch takes two event-loop iterations, one to start it and one to return it.
    """

    def __init__(self, engine: Engine, name: str, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._thread = EngineThread(name)
        self._expected_s: deque[float] = deque()  # of the batches in flight, the running one first
        self._began = 0.0  # start of the running batch
        self._timer: Timer | None = None
        self._when_free: Callable[[], None] = lambda: None
        self._closed: asyncio.Future[BaseException | None] | None = None
        self.free = True

    @property
    def engine(self) -> Engine:
        """The engine."""
        return self._engine

    @property
    def in_flight(self) -> int:
        """Number of batches, the running one included."""
        return len(self._expected_s)

    @property
    def alive(self) -> bool:
        """True while the thread is alive."""
        return self._thread.alive

    @property
    def stalled(self) -> bool:
        """True if the running batch is far behind its expected end."""
        return bool(self._expected_s) and is_stalled(self._clock.now() - self._began, self._expected_s[0])

    @property
    def remaining_s(self) -> float:
        """Estimated seconds until all batches in flight are done."""
        if not self._expected_s:
            return 0.0
        left_s = max(self._expected_s[0] - (self._clock.now() - self._began), 0.0)
        return left_s + sum(self._expected_s) - self._expected_s[0]

    def discount(self, seconds: float) -> None:
        """Excludes `seconds` from the running batch's time: the event loop stalled, and perhaps the engine with it."""
        self._began = min(self._began + seconds, self._clock.now())

    def notify(self, when_free: Callable[[], None]) -> None:
        """Registers a callback for each time that `free` becomes True; it runs on the event loop."""
        self._when_free = when_free

    def run(self, batch: Batch, outputs: Outputs, expected_s: float, done: Done) -> None:
        """Runs one batch after those in flight, then calls `done` once, on the event loop."""
        self._thread.submit(partial(self._compute, asyncio.get_running_loop(), batch, outputs, done))
        if not self._expected_s:
            self._began = self._clock.now()
        self._expected_s.append(expected_s)
        self._pace()

    async def close(self) -> None:
        """Closes the engine after the batches in flight, and ends the thread; concurrent calls wait for one close."""
        if self._closed is None:
            loop = asyncio.get_running_loop()
            self._closed = loop.create_future()
            self._thread.submit(partial(self._close_engine, loop, self._closed))
            self._thread.close()
        error = await asyncio.shield(self._closed)  # a cancelled call must not cancel the others
        if error is not None:
            raise error

    def abandon(self) -> None:
        """Abandons the thread without closing the engine."""
        self._thread.abandon()

    def _compute(self, loop: asyncio.AbstractEventLoop, batch: Batch, outputs: Outputs, done: Done) -> None:
        """Runs on the engine's thread. `run_in_executor` would take two futures and one more event-loop iteration."""
        result: BatchResult | BaseException
        try:
            started = time.perf_counter()
            output = self._engine.run(batch, outputs)
            seconds = time.perf_counter() - started
            result = BatchResult(output, finite_sequences(output, batch.placements), seconds)
        except BaseException as error:  # noqa: BLE001  # an engine may raise anything; its batch must be completed
            result = error
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            loop.call_soon_threadsafe(self._finish, done, result)

    def _close_engine(self, loop: asyncio.AbstractEventLoop, closed: asyncio.Future[BaseException | None]) -> None:
        """Runs on the engine's thread."""
        failure: BaseException | None = None
        try:
            self._engine.close()
        except BaseException as error:  # noqa: BLE001  # raised by `close`
            failure = error
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            loop.call_soon_threadsafe(_settle, closed, failure)

    def _finish(self, done: Done, result: BatchResult | BaseException) -> None:
        self._expected_s.popleft()
        self._began = self._clock.now()
        try:
            done(result)
        finally:
            self._pace()

    def _pace(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wait_s = EARLY * self._expected_s[0] - LEAD_S if self._expected_s else 0.0
        self.free = False
        if len(self._expected_s) >= MAX_IN_FLIGHT:
            return
        if wait_s <= 0:
            self._become_free()
        else:
            self._timer = self._clock.call_later(wait_s, self._become_free)

    def _become_free(self) -> None:
        self.free = True
        self._when_free()


def _settle(closed: asyncio.Future[BaseException | None], failure: BaseException | None) -> None:
    if not closed.done():  # else it was cancelled
        closed.set_result(failure)


def finite_sequences(output: ModelOutput, placements: Sequence[Placement]) -> NDArray[np.bool_]:
    """Returns (N,) bool: True for sequences whose outputs are all finite."""
    finite = np.ones(len(placements), np.bool_)
    for name in ENGINE_OUTPUTS:
        array: Float32Array | None = getattr(output, name.value)
        if array is None:
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            # Sums need no mask as large as the output; hidden states are far from overflowing one.
            vectors = np.isfinite(array.sum(axis=-1))  # (R, P) or (R, S)
        if not vectors.all():
            finite &= [_all_finite(vectors, place, name) for place in placements]
    return finite


def _all_finite(vectors: NDArray[np.bool_], place: Placement, output: Output) -> bool:
    if output in POSITION_OUTPUTS:
        return bool(vectors[place.row, place.start : place.start + place.length].all())
    return bool(vectors[place.row, place.slot])


def is_stalled(running_s: float, expected_s: float) -> bool:
    """Returns True if a batch has run for too long.

    Example:
        >>> is_stalled(2.7, expected_s=0.02), is_stalled(2.71, expected_s=0.02)
        (False, True)
    """
    return running_s > min(STALL_FACTOR * expected_s, expected_s + MAX_STALL_S) + STALL_SLACK_S
