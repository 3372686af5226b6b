"""Feeds the engines: coalesces arrivals, plans the next batch, hands it to a free worker and takes it back.

On the event loop only. While one batch runs, arrivals wait. Shortly before it ends, the planner partitions the first
waiting rows, and the micro-batch with the most urgent row runs next. So batches grow with the load, and no timer
delays a row: an idle engine starts once `CoalescingWindow` closes. Retries run before anything that waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from electra_serve.batching.clock import Clock
from electra_serve.batching.coalescing import CoalescingWindow
from electra_serve.batching.completion import BatchCompletion
from electra_serve.batching.cost_model import DriftCorrection
from electra_serve.batching.engine_worker import BatchResult, EngineWorker
from electra_serve.batching.flight_recorder import FlightRecorder, InFlightBatch
from electra_serve.batching.in_flight import InFlight, RetryQueue, fail
from electra_serve.batching.pending import PendingRow, PendingRows
from electra_serve.batching.planner import Planner
from electra_serve.batching.queue import RequestQueue
from electra_serve.errors import DeadlineExceeded, ShuttingDown
from electra_serve.observability.metrics import BatchMetrics
from electra_serve.tensors import Batch, BatchShape


class Dispatcher:
    """Starts the batches of one model.

    Args:
        queue: Rows that wait.
        planner: Chooses the next batch among them.
        workers: One per engine, at least one.
        clock: Tells the time.
        in_flight: Rows that have left the queue.
        retries: Halves of failed batches that wait to be run again.
        completion: Takes finished batches back.
        correction: Scales the cost model's expectations.
        recorder: Keeps the last batches.
        metrics: Counts queue waits.
        max_window_sequences: Number of waiting sequences that the planner sees.
        on_fault: Called with an exception of the dispatcher's own, after which nothing is fed.
    """

    def __init__(
        self,
        *,
        queue: RequestQueue[PendingRow],
        planner: Planner,
        workers: Sequence[EngineWorker],
        clock: Clock,
        in_flight: InFlight,
        retries: RetryQueue,
        completion: BatchCompletion,
        correction: DriftCorrection,
        recorder: FlightRecorder,
        metrics: BatchMetrics,
        max_window_sequences: int,
        on_fault: Callable[[Exception], None],
    ) -> None:
        self._queue = queue
        self._planner = planner
        self._workers = workers
        self._clock = clock
        self._in_flight = in_flight
        self._retries = retries
        self._completion = completion
        self._correction = correction
        self._recorder = recorder
        self._metrics = metrics
        self._max_window_sequences = max_window_sequences
        self._on_fault = on_fault
        self._window: CoalescingWindow | None = None
        self.feeding = False

    def start(self) -> None:
        """Begins to feed the engines."""
        self.feeding = True
        for worker in self._workers:
            worker.notify(self._feed_next)
        self.feed_soon()

    def stop(self) -> None:
        """Starts no further batch; batches that run are still taken back."""
        self.feeding = False

    def feed_soon(self) -> None:
        """Opens a coalescing window if rows wait and an engine is free."""
        if self._window is None and self._queue.sequences and self._free_worker() is not None:
            self._window = CoalescingWindow(self._clock.now(), self._queue.sequences)
            asyncio.get_running_loop().call_soon(self._coalesce)

    def _coalesce(self) -> None:
        if self._window is not None and self._window.goes_on(self._clock.now(), self._queue.sequences):
            asyncio.get_running_loop().call_soon(self._coalesce)
        else:
            self._window = None
            self._feed()

    def _feed_next(self) -> None:
        """Feeds an engine that has become free, without a coalescing window: arrivals have waited for it already."""
        if self._window is None and (self._retries or self._queue.sequences):
            asyncio.get_running_loop().call_soon(self._feed)

    def _feed(self) -> None:
        """Gives every free engine a batch, retries first."""
        try:
            while self.feeding and (worker := self._free_worker()) is not None:
                if (retry := self._retries.next()) is not None:
                    self._start(worker, retry.rows, budget=retry.budget)
                elif self._queue.sequences:
                    self._start_next(worker)
                else:
                    break
        except Exception as error:  # noqa: BLE001  # a bug here must reach the logs and the probes
            self._on_fault(error)

    def _free_worker(self) -> EngineWorker | None:
        """Returns the free worker with the fewest batches in flight."""
        free = [worker for worker in self._workers if worker.free]
        return min(free, key=lambda worker: worker.in_flight, default=None)

    def _start_next(self, worker: EngineWorker) -> None:
        rows, shape = self._choose()
        if rows:
            self._start(worker, rows, shape, budget=self._planner.max_tokens)

    def _choose(self) -> tuple[PendingRows, BatchShape]:
        """Takes the next micro-batch out of the queue; returns no rows if all that waited has expired."""
        now = self._clock.now()
        fail(self._queue.expire(now), deadline_exceeded())
        window = self._queue.window(self._max_window_sequences)
        if not window:
            return [], BatchShape(0, 0)
        chosen = self._planner.plan_next([row.length for row in window])
        rows = [window[index] for index in sorted(chosen.rows)]  # by turn: the most urgent comes first
        for row in rows:
            self._metrics.queue_wait_s.observe(now - row.admitted_at)
        self._queue.take(rows)
        self._in_flight.take(rows)
        return rows, chosen.shape

    def _start(self, worker: EngineWorker, rows: PendingRows, shape: BatchShape | None = None, *, budget: int) -> None:
        """Hands one batch to a worker; without a shape, in the smallest of the engine's grid that holds it."""
        try:
            if shape is None:
                grid = worker.engine.signature.grid
                shape = grid.fit(len(rows), max(row.length for row in rows))
            packed = Batch.pack([row.encoding for row in rows], shape)
            batch = InFlightBatch(
                engine=self._workers.index(worker),
                budget=budget,
                shape=shape,
                admitted_at=min(row.admitted_at for row in rows),
                chosen_at=self._clock.now(),
                real_tokens=sum(row.encoding.real_tokens for row in rows),
                outputs=frozenset(output for row in rows for output in row.request.outputs),
                expected_s=self._planner.cost.seconds(shape.rows, shape.length) * self._correction.factor,
            )
            self._in_flight.begin(batch, rows)
            self._recorder.add(batch)
            worker.run(packed, batch.outputs, batch.expected_s, partial(self._finish, batch))
        except Exception:  # noqa: BLE001  # a bug here must not leave these rows without a result
            self._completion.abort(rows)

    def _finish(self, batch: InFlightBatch, result: BatchResult | BaseException) -> None:
        """Takes one batch back; retries that it leaves run next, or fail if nothing is fed any more."""
        self._completion.complete(batch, result, self._clock.now())
        if not self.feeding:
            self._retries.fail(stopped())
        elif self._retries:
            self._feed_next()


def deadline_exceeded() -> DeadlineExceeded:
    """The error of a row whose deadline has passed."""
    return DeadlineExceeded("the deadline passed before the answer was there")


def stopped() -> ShuttingDown:
    """The error of a row whose turn did not come before the service stopped."""
    return ShuttingDown("the service stopped before this request's turn came")
