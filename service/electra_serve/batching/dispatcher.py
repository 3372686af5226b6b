"""Feeds the engines: coalesces arrivals, plans the next batch, hands it to a free worker and takes it back.

On the event loop only. While one batch runs, arrivals wait. Shortly before it ends, the planner packs the first waiting
sequences into batches, and the one with the most urgent sequence runs next. So batches grow with the load, and no timer
delays a request: an idle engine starts once `CoalescingWindow` closes. Engines that are free at the same time share
what waits. Retries run before anything that waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from math import ceil

from electra_serve.batching.clock import Clock
from electra_serve.batching.coalescing import CoalescingWindow
from electra_serve.batching.completion import BatchCompletion
from electra_serve.batching.engine_worker import BatchResult
from electra_serve.batching.flight_recorder import FlightRecorder, InFlightBatch
from electra_serve.batching.in_flight import InFlight, PlannedBatch, RetryQueue, fail
from electra_serve.batching.pending import PendingRow
from electra_serve.batching.queue import RequestQueue
from electra_serve.batching.worker_pool import NextBatch, WorkerPool
from electra_serve.errors import DeadlineExceeded, ShuttingDown
from electra_serve.observability.metrics import BatchMetrics
from electra_serve.tensors import Batch


class Dispatcher:
    """Starts the batches of one model.

    Args:
        queue: Rows that wait.
        pool: The engines, and the planners of their batches.
        clock: Tells the time.
        in_flight: Rows that have left the queue.
        retries: Halves of failed batches that wait to be run again.
        completion: Takes finished batches back.
        recorder: Keeps the last batches.
        metrics: Counts queue waits.
        max_window_sequences: Number of waiting sequences that the planner sees.
        on_fault: Called with an exception of the dispatcher's own, after which nothing is fed.
    """

    def __init__(
        self,
        *,
        queue: RequestQueue[PendingRow],
        pool: WorkerPool,
        clock: Clock,
        in_flight: InFlight,
        retries: RetryQueue,
        completion: BatchCompletion,
        recorder: FlightRecorder,
        metrics: BatchMetrics,
        max_window_sequences: int,
        on_fault: Callable[[Exception], None],
    ) -> None:
        self._queue = queue
        self._pool = pool
        self._clock = clock
        self._in_flight = in_flight
        self._retries = retries
        self._completion = completion
        self._recorder = recorder
        self._metrics = metrics
        self._max_window_sequences = max_window_sequences
        self._on_fault = on_fault
        self._window: CoalescingWindow | None = None
        self.feeding = False

    def start(self) -> None:
        """Begins to feed the engines."""
        self.feeding = True
        for worker in self._pool.workers:
            worker.notify(self._feed_next)
        self.feed_soon()

    def stop(self) -> None:
        """Starts no further batch; batches that run are still taken back."""
        self.feeding = False

    def feed_soon(self) -> None:
        """Opens a coalescing window if rows wait and an engine is free."""
        if self._window is None and self._queue.sequences and self._next() is not None:
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
            while self.feeding and (chosen := self._next()) is not None:
                if (retry := self._retries.next()) is not None:
                    self._start(chosen, retry)
                elif self._queue.sequences:
                    self._start_next(chosen)
                else:
                    break
        except Exception as error:  # noqa: BLE001  # a bug here must reach the logs and the probes
            self._on_fault(error)

    def _next(self) -> NextBatch | None:
        """Returns the engine for the next batch. Retries are planned for the engines that share the queue."""
        if self._retries:
            return self._pool.next(len(self._pool.workers), 0)
        return self._pool.next(self._queue.sequences, self._queue.tokens)

    def _start_next(self, chosen: NextBatch) -> None:
        batch = self._choose(chosen)
        if batch is not None:
            self._start(chosen, batch)

    def _choose(self, chosen: NextBatch) -> PlannedBatch | None:
        """Takes the next batch out of the queue; returns None if all that waited has expired."""
        now = self._clock.now()
        fail(self._queue.expire(now), deadline_exceeded())
        planner = chosen.lane.planner
        share = ceil(self._queue.sequences * chosen.share)
        window = self._queue.window(min(share, self._max_window_sequences))
        if not window:
            return None
        plan = planner.plan_next([row.length for row in window])
        rows = [window[index] for index in plan.sequences]  # by turn: the most urgent comes first
        for row in rows:
            self._metrics.queue_wait_s.observe(now - row.admitted_at)
        self._queue.take(rows)
        self._in_flight.take(rows)
        return PlannedBatch(rows, plan.shape, plan.placements, planner.max_positions)

    def _start(self, chosen: NextBatch, planned: PlannedBatch) -> None:
        """Packs one batch and hands it to its engine's worker."""
        rows = planned.rows
        try:
            batch = InFlightBatch(
                lane=chosen.lane,
                engine=self._pool.workers.index(chosen.worker),
                budget=planned.budget,
                shape=planned.shape,
                placements=planned.placements,
                admitted_at=min(row.admitted_at for row in rows),
                chosen_at=self._clock.now(),
                real_tokens=sum(row.encoding.real_tokens for row in rows),
                outputs=frozenset(output for row in rows for output in row.request.outputs),
                expected_s=chosen.lane.expected_s(planned.shape),
            )
            packed = Batch.pack([row.encoding for row in rows], planned.placements, planned.shape)
            self._in_flight.begin(batch, rows)
            self._recorder.add(batch)
            chosen.worker.run(packed, batch.outputs, batch.expected_s, partial(self._finish, batch))
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
