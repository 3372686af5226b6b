"""One engine and the one thread that runs it.

At most two batches are in flight: one that runs and one that waits, packed, for the thread. The second is
asked for only when the first is about to end by the cost model's reckoning (`free` tells). Earlier, and it
would be cut from fewer waiting sequences than will be there; later, and the engine would stand idle while the
event loop picks the next.
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
from electra_serve.tensors import Batch, Float32Array, ModelOutput, Output, Outputs, Placement

LEAD_S: Final = 0.002
"""How long before the running batch's expected end the next one is chosen: enough for a turn of a busy event
loop, the planning and the packing."""
EARLY: Final = 0.8
"""The part of the expected seconds after which a batch may end. Expectations are off by some ten per cent, and being
late idles the engine, while being early costs the next batch next to nothing: most of those that it could be cut from
came when the one before was answered."""
MAX_IN_FLIGHT: Final = 2
STALL_FACTOR: Final = 10.0
MAX_STALL_S: Final = 1.5
STALL_SLACK_S: Final = 2.5
"""A batch may take ten times its expected seconds, at most 1.5 s longer, and 2.5 s: a throttled CPU, a busy neighbor.
With the watchdog's half second, a hanging engine is noticed within 5 s."""


@dataclass(frozen=True, slots=True, eq=False)
class BatchResult:
    """A batch that ran.

    Attributes:
        output: What the engine answered.
        finite: (N,) bool, whether all numbers of each of the batch's sequences are finite.
        seconds: How long the engine took.
    """

    output: ModelOutput
    finite: NDArray[np.bool_]
    seconds: float


Done: TypeAlias = Callable[[BatchResult | BaseException], None]
"""Takes what became of a batch: what it computed, or what the engine raised."""
Work: TypeAlias = Callable[[], None]


class EngineThread:
    """Runs work in order on one daemon thread.

    Unlike the standard library's executor it shows whether its thread has ended, and a hanging thread does not
    block the exit of the interpreter.

    Args:
        name: The thread's.
    """

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it runs what it is given; False too once it was closed and is done."""
        return self._thread.is_alive()

    def submit(self, work: Work) -> None:
        """Runs `work`, which must not raise, after what was submitted before."""
        self._work.put(work)

    def close(self) -> None:
        """Ends the thread after what was submitted."""
        self._work.put(None)

    def abandon(self) -> None:
        """Ends the thread if it ever returns; until then the interpreter must not be finalized under it."""
        mark_abandoned(self._thread)
        self.close()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


class EngineWorker:
    """Runs one engine's batches, in order, on one thread.

    Plain callbacks, not coroutines: a batch passes through here in two turns of the event loop, one when it is
    handed over and one when it is back.

    Args:
        engine: Called from that thread only.
        name: The thread's name.
        clock: Tells when a batch is about to end.
    """

    def __init__(self, engine: Engine, name: str, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._thread = EngineThread(name)
        self._expected_s: deque[float] = deque()  # of the batches in flight, the running one first
        self._began = 0.0  # when the running one did
        self._timer: Timer | None = None
        self._when_free: Callable[[], None] = lambda: None
        self._closed: asyncio.Future[BaseException | None] | None = None
        self.free = True

    @property
    def engine(self) -> Engine:
        """The engine it runs."""
        return self._engine

    @property
    def in_flight(self) -> int:
        """How many batches it has, the running one included."""
        return len(self._expected_s)

    @property
    def alive(self) -> bool:
        """Whether its thread is there."""
        return self._thread.alive

    @property
    def stalled(self) -> bool:
        """Whether the running batch should have ended long ago."""
        return bool(self._expected_s) and is_stalled(self._clock.now() - self._began, self._expected_s[0])

    @property
    def remaining_s(self) -> float:
        """Seconds until all that is in flight should be done."""
        if not self._expected_s:
            return 0.0
        left_s = max(self._expected_s[0] - (self._clock.now() - self._began), 0.0)
        return left_s + sum(self._expected_s) - self._expected_s[0]

    def discount(self, seconds: float) -> None:
        """Does not count `seconds` of the running batch: the event loop stalled, and the engine perhaps with it."""
        self._began = min(self._began + seconds, self._clock.now())

    def notify(self, when_free: Callable[[], None]) -> None:
        """Has `when_free` called on the event loop whenever `free` becomes true."""
        self._when_free = when_free

    def run(self, batch: Batch, outputs: Outputs, expected_s: float, done: Done) -> None:
        """Runs one batch after those already in flight.

        Args:
            batch: What to run.
            outputs: What to compute.
            expected_s: How long it should take.
            done: Called once on the event loop, before the runner says that it is free.
        """
        self._thread.submit(partial(self._compute, asyncio.get_running_loop(), batch, outputs, done))
        if not self._expected_s:
            self._began = self._clock.now()
        self._expected_s.append(expected_s)
        self._pace()

    async def close(self) -> None:
        """Closes the engine after what is in flight, and ends the thread.

        The engine is closed once, however often this is called: whoever comes later, or again after having been
        cancelled, waits for the same end.
        """
        if self._closed is None:
            loop = asyncio.get_running_loop()
            self._closed = loop.create_future()
            self._thread.submit(partial(self._close_engine, loop, self._closed))
            self._thread.close()
        error = await asyncio.shield(self._closed)  # one who stops waiting does not take it from the others
        if error is not None:
            raise error

    def leave(self) -> None:
        """Ends the thread, should it ever come back; the engine is not closed."""
        self._thread.abandon()

    def _compute(self, loop: asyncio.AbstractEventLoop, batch: Batch, outputs: Outputs, done: Done) -> None:
        """On the engine's thread. `run_in_executor` would take two futures and a turn of the loop more to say so."""
        came: BatchResult | BaseException
        try:
            started = time.perf_counter()
            output = self._engine.run(batch, outputs)
            seconds = time.perf_counter() - started
            came = BatchResult(output, finite_sequences(output, batch.placements), seconds)
        except BaseException as error:  # noqa: BLE001  # an engine may raise anything, and its batch waits to hear of it
            came = error
        with contextlib.suppress(RuntimeError):  # the loop has gone, and with it whoever waited
            loop.call_soon_threadsafe(self._finish, done, came)

    def _close_engine(self, loop: asyncio.AbstractEventLoop, closed: asyncio.Future[BaseException | None]) -> None:
        """On the engine's thread."""
        failure: BaseException | None = None
        try:
            self._engine.close()
        except BaseException as error:  # noqa: BLE001  # handed to whoever awaits it
            failure = error
        with contextlib.suppress(RuntimeError):  # as above
            loop.call_soon_threadsafe(_settle, closed, failure)

    def _finish(self, done: Done, came: BatchResult | BaseException) -> None:
        self._expected_s.popleft()
        self._began = self._clock.now()
        try:
            done(came)
        finally:
            self._pace()

    def _pace(self) -> None:
        """Sets `free` now, or has the clock set it shortly before the running batch ends."""
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
    if not closed.done():  # else nobody waits any more
        closed.set_result(failure)


def finite_sequences(output: ModelOutput, placements: Sequence[Placement]) -> NDArray[np.bool_]:
    """Which of a batch's sequences hold finite numbers only: (N,) bool.

    A vector's sum is finite only if all its numbers are (hidden states are far from overflowing one), and
    summing reads the memory once without making a mask as large as the output.

    Example:
        >>> output = ModelOutput(cls_output=np.array([[[1, 2], [np.nan, 2]]], np.float32))
        >>> places = [Placement(row=0, slot=slot, start=4 * slot, length=4) for slot in (0, 1)]
        >>> finite_sequences(output, places).tolist()
        [True, False]
    """
    finite = np.ones(len(placements), np.bool_)
    for name in Output:
        array: Float32Array | None = getattr(output, name.value)
        if array is None:
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            vectors = np.isfinite(array.sum(axis=-1))  # (R, P) or (R, S)
        if not vectors.all():
            finite &= [_all_finite(vectors, place, name) for place in placements]
    return finite


def _all_finite(vectors: NDArray[np.bool_], place: Placement, output: Output) -> bool:
    if output is Output.SEQUENCE:
        return bool(vectors[place.row, place.start : place.start + place.length].all())
    return bool(vectors[place.row, place.slot])


def is_stalled(running_s: float, expected_s: float) -> bool:
    """Whether a batch that should take `expected_s` and has run for `running_s` is stalled.

    Example:
        >>> is_stalled(2.7, expected_s=0.02), is_stalled(2.71, expected_s=0.02)
        (False, True)
        >>> is_stalled(5.0, expected_s=1.0), is_stalled(5.1, expected_s=1.0)
        (False, True)
    """
    return running_s > min(STALL_FACTOR * expected_s, expected_s + MAX_STALL_S) + STALL_SLACK_S
