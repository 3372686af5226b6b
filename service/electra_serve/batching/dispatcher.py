"""Dispatches batches: coalesces arrivals, plans the next batch and hands it to a free worker.

While a batch runs, arrivals queue. Shortly before its expected end the queue is planned again, and the batch with the
most urgent sequence runs next. Batches thus grow with the load, and no timer waits for one to fill. Retries run first.
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
from electra_serve.batching.worker_pool import EngineSlot, WorkerPool
from electra_serve.errors import DeadlineExceeded, ShuttingDown
from electra_serve.observability.metrics import BatchMetrics
from electra_serve.tensors import Batch


class Dispatcher:
    """Starts the batches of one model."""

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
        on_fault: Callable[[Exception], None],  # called with an exception of the dispatcher itself
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
        self._coalescing: CoalescingWindow | None = None
        self.feeding = False

    def start(self) -> None:
        """Starts dispatching."""
        self.feeding = True
        for worker in self._pool.workers:
            worker.notify(self._feed_next)
        self.feed_soon()

    def stop(self) -> None:
        """Starts no further batch; running ones still complete."""
        self.feeding = False

    def feed_soon(self) -> None:
        """Opens a coalescing window if rows are queued and an engine can take a batch."""
        if self._coalescing is None and self._queue.sequences and self._free_slot() is not None:
            self._coalescing = CoalescingWindow(self._clock.now(), self._queue.sequences)
            asyncio.get_running_loop().call_soon(self._coalesce)

    def _coalesce(self) -> None:
        if self._coalescing is not None and self._coalescing.is_open(self._clock.now(), self._queue.sequences):
            asyncio.get_running_loop().call_soon(self._coalesce)
        else:
            self._coalescing = None
            self._feed()

    def _feed_next(self) -> None:
        """Feeds an engine without a coalescing window: rows queued while it was busy."""
        if self._coalescing is None and (self._retries or self._queue.sequences):
            asyncio.get_running_loop().call_soon(self._feed)

    def _feed(self) -> None:
        try:
            while self.feeding and (slot := self._free_slot()) is not None:
                if (retry := self._retries.next()) is not None:
                    self._start(slot, retry)
                elif self._queue.sequences:
                    self._start_next(slot)
                else:
                    break
        except Exception as error:  # noqa: BLE001  # a bug here must reach the logs and the probes
            self._on_fault(error)

    def _free_slot(self) -> EngineSlot | None:
        """Returns a slot for the next batch. Retries never take the lone engine, as it lacks their shapes."""
        if self._retries:
            return self._pool.free_slot(len(self._pool.workers), 0)
        return self._pool.free_slot(self._queue.sequences, self._queue.tokens)

    def _start_next(self, slot: EngineSlot) -> None:
        batch = self._choose(slot)
        if batch is not None:
            self._start(slot, batch)

    def _choose(self, slot: EngineSlot) -> PlannedBatch | None:
        """Takes the next batch from the queue; returns None if all queued rows have expired."""
        now = self._clock.now()
        fail(self._queue.expire(now), deadline_exceeded())
        planner = slot.lane.planner
        share = ceil(self._queue.sequences * slot.share)
        window = self._queue.window(min(share, self._max_window_sequences))
        if not window:
            return None
        plan = planner.plan_next([row.length for row in window])
        rows = [window[index] for index in plan.sequences]  # most urgent first
        for row in rows:
            self._metrics.queue_wait_s.observe(now - row.admitted_at)
        self._queue.take(rows)
        self._in_flight.take(rows)
        return PlannedBatch(rows, plan.shape, plan.placements, planner.max_positions)

    def _start(self, slot: EngineSlot, planned: PlannedBatch) -> None:
        rows = planned.rows
        try:
            batch = InFlightBatch(
                lane=slot.lane,
                engine=self._pool.workers.index(slot.worker),
                budget=planned.budget,
                shape=planned.shape,
                placements=planned.placements,
                admitted_at=min(row.admitted_at for row in rows),
                chosen_at=self._clock.now(),
                real_tokens=sum(row.encoding.real_tokens for row in rows),
                outputs=frozenset(output for row in rows for output in row.request.outputs),
                expected_s=slot.lane.expected_s(planned.shape),
            )
            packed = Batch.pack([row.encoding for row in rows], planned.placements, planned.shape)
            self._in_flight.begin(batch, rows)
            self._recorder.add(batch)
            slot.worker.run(packed, batch.outputs, batch.expected_s, partial(self._finish, batch))
        except Exception:  # noqa: BLE001  # a bug here must not leave these rows without a result
            self._completion.abort(rows)

    def _finish(self, batch: InFlightBatch, result: BatchResult | BaseException) -> None:
        """Completes one batch; its retries run next, or fail after `stop`."""
        self._completion.complete(batch, result, self._clock.now())
        if not self.feeding:
            self._retries.fail(stopped())
        elif self._retries:
            self._feed_next()


def deadline_exceeded() -> DeadlineExceeded:
    """Returns the error of a request whose deadline has passed."""
    return DeadlineExceeded("the deadline passed before the response was ready")


def stopped() -> ShuttingDown:
    """Returns the error of a request that was queued when the service stopped."""
    return ShuttingDown("the service stopped before this request ran")
