"""One engine and the one thread that runs it.

At most two batches are in flight: one that runs and one that waits, packed, for the thread. The second is
asked for only when the first is about to end by the cost model's reckoning (`free` tells). Earlier, and it
would be cut from fewer waiting sequences than will be there; later, and the engine would stand idle while the
event loop picks the next.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.batching.clock import Clock, Timer
from service.engine.base import Engine
from service.tensors import Batch, ModelOutput, Output, Outputs

LEAD_S: Final = 0.002
"""How long before the running batch's expected end the next one is chosen: enough for a turn of a busy event
loop, the planning and the packing."""
EARLY: Final = 0.8
"""The part of the expected seconds after which a batch may end. Expectations are off by some ten per cent, and being
late idles the engine, while being early costs the next batch next to nothing: most of those that it could be cut from
came when the one before was answered."""
MAX_IN_FLIGHT: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class Ran:
    """A batch that ran.

    Attributes:
        output: What the engine answered.
        finite: (B,) bool, whether all of a row's numbers are finite.
        seconds: How long the engine took.
    """

    output: ModelOutput
    finite: NDArray[np.bool_]
    seconds: float


class EngineRunner:
    """Runs one engine's batches, in order, on one thread.

    Args:
        engine: Called from that thread only.
        name: The thread's name.
        clock: Tells when a batch is about to end.
    """

    def __init__(self, engine: Engine, name: str, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._expected_s: deque[float] = deque()  # of the batches in flight, the running one first
        self._timer: Timer | None = None
        self.free = asyncio.Event()
        self.free.set()

    @property
    def engine(self) -> Engine:
        """The engine it runs."""
        return self._engine

    async def run(self, batch: Batch, outputs: Outputs, expected_s: float) -> Ran:
        """Runs one batch after those already in flight.

        Args:
            batch: What to run.
            outputs: What to compute.
            expected_s: How long it should take.

        Raises:
            Exception: Whatever the engine raised.
        """
        ran: asyncio.Future[Ran] = asyncio.get_running_loop().create_future()
        self._expected_s.append(expected_s)
        self._pace()
        self._executor.submit(self._compute, batch, outputs, ran)
        try:
            return await ran
        finally:
            self._expected_s.popleft()
            self._pace()

    async def close(self) -> None:
        """Waits for the thread to finish and closes the engine."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, self._engine.close)
        self._executor.shutdown(wait=True)

    def _compute(self, batch: Batch, outputs: Outputs, ran: asyncio.Future[Ran]) -> None:
        """Runs on the engine's thread. `run_in_executor` would wrap one future in another, for 5 µs a batch."""
        settle: Callable[[], None]
        try:
            started = time.perf_counter()
            output = self._engine.run(batch, outputs)
            seconds = time.perf_counter() - started
            settle = partial(_succeed, ran, Ran(output, finite_rows(output, batch.shape.rows), seconds))
        except BaseException as error:  # noqa: BLE001  # whatever it is, the batch waits for it
            settle = partial(_fail, ran, error)
        ran.get_loop().call_soon_threadsafe(settle)

    def _pace(self) -> None:
        """Sets `free` now, or has the clock set it shortly before the running batch ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wait_s = EARLY * self._expected_s[0] - LEAD_S if self._expected_s else 0.0
        if len(self._expected_s) >= MAX_IN_FLIGHT:
            self.free.clear()
        elif wait_s <= 0:
            self.free.set()
        else:
            self.free.clear()
            self._timer = self._clock.call_later(wait_s, self.free.set)


def _succeed(ran: asyncio.Future[Ran], result: Ran) -> None:
    if not ran.done():
        ran.set_result(result)


def _fail(ran: asyncio.Future[Ran], error: BaseException) -> None:
    if not ran.done():
        ran.set_exception(error)


def finite_rows(output: ModelOutput, rows: int) -> NDArray[np.bool_]:
    """Which rows hold finite numbers only, (rows,) bool.

    A row's sum is finite only if all its numbers are (hidden states are far from overflowing one), and
    summing reads the memory once without making a mask as large as the output.

    Example:
        >>> finite_rows(ModelOutput(cls_output=np.array([[1, 2], [np.nan, 2]], np.float32)), 2).tolist()
        [True, False]
    """
    finite = np.ones(rows, np.bool_)
    for name in Output:
        array = getattr(output, name.value)
        if array is not None:
            with np.errstate(invalid="ignore", over="ignore"):
                finite &= np.isfinite(array.reshape(rows, -1).sum(axis=1))
    return finite
