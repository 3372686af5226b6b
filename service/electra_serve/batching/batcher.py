"""Awaits requests, runs batches, answers rows.

Everything here runs on the event loop; only `EngineWorker` touches the engine's thread. Decisions are
made by pure parts: `RequestQueue` says whose turn it is, `Planner` who shares a batch.

There is no timer that holds a sequence back for company. While one batch runs, arrivals wait; when it is about
to end, the planner partitions all that wait and the micro-batch with the most urgent sequence goes next.
So batches grow with load by themselves, and an idle engine starts as soon as the event loop has taken in what is there
(`CoalescingWindow`).

Each admitted row gets exactly one result: its output or an error. `BatchCompletion` takes batches back from the
engines: it delivers the rows, or queues parts of the batch for a retry, which runs before anything that waits.

An engine that is late makes the model not alive until it is back. One that does not come back is a failure: what is in
its hands may have done it, and fails; what waits is told to try again elsewhere; and the process has to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog

from electra_serve.batching.clock import Clock
from electra_serve.batching.coalescing import CoalescingWindow
from electra_serve.batching.completion import BatchCompletion, BatchObserver
from electra_serve.batching.cost_model import CostModel, DriftCorrection
from electra_serve.batching.engine_worker import BatchResult, EngineWorker
from electra_serve.batching.flight_recorder import BatchOutcome, BatchRecord, FlightRecorder, InFlightBatch, for_log
from electra_serve.batching.in_flight import Entries, InFlight, RetryQueue, fail
from electra_serve.batching.pending import PendingRequest, Row
from electra_serve.batching.planner import Planner
from electra_serve.batching.queue import Entry, RequestQueue
from electra_serve.batching.watchdog import Watchdog
from electra_serve.errors import (
    DeadlineExceeded,
    EngineFailure,
    InternalError,
    ModelNotReady,
    ServiceError,
    ShuttingDown,
)
from electra_serve.observability.metrics import BatchMetrics
from electra_serve.observability.tracing import RequestSpan
from electra_serve.tensors import Batch, BatchShape, Encoding, Outputs, RowOutput


class Batcher:
    """Groups the sequences of all callers of one model into batches.

    Args:
        queue: Where they wait.
        planner: Cuts the batches.
        workers: One per engine, at least one; all share the queue.
        clock: Tells the time.
        metrics: Where batches are counted.
        log: Where engine failures are written.
        max_window_sequences: How many waiting sequences the planner looks at.
        hang_timeout_s: Seconds that an engine may be late.
        recorder: Keeps what became of the last batches.
        observe: Told of each batch that has ended, after its rows are answered.
    """

    def __init__(
        self,
        *,
        queue: RequestQueue[Row],
        planner: Planner,
        workers: Sequence[EngineWorker],
        clock: Clock,
        metrics: BatchMetrics,
        log: structlog.typing.FilteringBoundLogger,
        max_window_sequences: int,
        hang_timeout_s: float,
        recorder: FlightRecorder,
        observe: BatchObserver | None = None,
    ) -> None:
        self._queue = queue
        self._planner = planner
        self._workers = workers
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._max_window_sequences = max_window_sequences
        self._recorder = recorder
        self._watchdog = Watchdog(workers, hang_timeout_s, clock, stalled=self._set_stalled, failed=self._fail_engine)
        self._correction = DriftCorrection()
        self._rejecting = False
        self._stalled = False
        self._feeding = False
        self._coalescing: CoalescingWindow | None = None
        self._in_flight = InFlight()
        self._retries = RetryQueue(self._in_flight)
        self._completion = BatchCompletion(
            in_flight=self._in_flight,
            retries=self._retries,
            planner=planner,
            correction=self._correction,
            longest=workers[0].engine.signature.grid.max_length,
            metrics=metrics,
            log=log,
            observe=observe,
        )
        self.failure = ""
        """Why nothing will come of this model any more; empty while something will."""

    @property
    def queue(self) -> RequestQueue[Row]:
        """Where sequences wait; for gauges to read."""
        return self._queue

    @property
    def running_sequences(self) -> int:
        """How many sequences have left the queue and have no answer yet."""
        return self._in_flight.sequences

    @property
    def cost(self) -> CostModel:
        """What a batch is taken to cost."""
        return self._planner.cost

    @property
    def batch_tokens(self) -> int:
        """Most positions in a batch of several sequences, padding included."""
        return self._planner.batch_tokens

    @property
    def alive(self) -> bool:
        """Whether every engine is being fed, and none is late."""
        return self._feeding and not self._stalled

    def records(self) -> tuple[BatchRecord, ...]:
        """What became of the last batches, oldest first."""
        return self._recorder.records()

    def start(self) -> None:
        """Begins to feed the engines."""
        self._feeding = True
        for worker in self._workers:
            worker.notify(self._feed_next)
        self._watchdog.start()
        self._feed_soon()

    async def submit(
        self,
        encodings: Sequence[Encoding],
        outputs: Outputs,
        *,
        client: str = "",
        priority: int = 1,
        timeout_s: float | None = None,
        span: RequestSpan | None = None,
    ) -> list[RowOutput]:
        """Waits for the outputs of all `encodings`, in their order.

        Cancelling the call takes what still waits out of the queue.

        Args:
            encodings: Checked sequences, at least one.
            outputs: What to compute, at least one.
            client: Whose turn it is.
            priority: Lower goes first.
            timeout_s: Seconds after which the answer is no longer wanted.
            span: The request's, where requests are traced.

        Raises:
            Overloaded: The queue has no room for all of them, or their turn would come after `timeout_s`.
            ShuttingDown: Nothing new is admitted.
            DeadlineExceeded: `timeout_s` passed first.
            EngineFailure: The engine fails on one of them.
            ModelNotReady: The engine failed before their turn came.
        """
        self._check_open()
        if timeout_s is not None and timeout_s <= 0:
            raise _deadline_exceeded()
        now = self._clock.now()
        job = PendingRequest(len(encodings), outputs, span)
        deadline = None if timeout_s is None else now + timeout_s
        entries = [self._entry(job, index, row, client, priority, deadline) for index, row in enumerate(encodings)]
        self._queue.admit(entries, now, busy_s=min(worker.remaining_s for worker in self._workers))
        self._feed_soon()
        timer = None if timeout_s is None else self._clock.call_later(timeout_s, lambda: job.fail(_deadline_exceeded()))
        try:
            return await job.answer
        finally:
            if timer is not None:
                timer.cancel()
            self._queue.cancel(entries)

    def check_room(self, sequences: int, client: str = "") -> None:
        """Refuses so many sequences, of whatever length, where `submit` would: before work is put into them.

        Args:
            sequences: How many, at least.
            client: Whose they are.

        Raises:
            Overloaded: The queue has no room for them.
            ShuttingDown: Nothing new is admitted.
        """
        self._check_open()
        self._queue.check_room(client, sequences, tokens=sequences)

    def reject(self) -> None:
        """Admits nothing new from now on; what was admitted is answered."""
        self._rejecting = True

    async def close(self, within_s: float | None = None) -> bool:
        """Stops feeding, fails what still waits, and closes the engines when they are done.

        Args:
            within_s: Seconds that they have; then they are left to themselves. None: as long as it takes.

        Returns:
            Whether they were closed.
        """
        self.reject()
        self._feeding = False
        self._fail_waiting(_stopped())
        try:
            await asyncio.wait_for(self._in_flight.idle.wait(), within_s)
        except TimeoutError:
            self._fail_engine("an engine has not ended in time")
        self._watchdog.stop()
        if not self.failure:
            try:
                await asyncio.wait_for(asyncio.gather(*(worker.close() for worker in self._workers)), within_s)
            except TimeoutError:
                self._fail_engine("an engine could not be closed in time")
        if self.failure:
            for worker in self._workers:
                worker.leave()
        return not self.failure

    def _check_open(self) -> None:
        if self.failure:
            raise ModelNotReady("the model's engine has failed, and the service is about to start anew")
        if self._rejecting:
            raise ShuttingDown("the service is shutting down and admits nothing new")

    def _entry(
        self, job: PendingRequest, index: int, encoding: Encoding, client: str, priority: int, deadline: float | None
    ) -> Entry[Row]:
        return Entry(
            item=Row(job, index, encoding),
            length=encoding.compute_length,
            work_s=self._planner.cost.row_seconds(encoding.compute_length) * self._correction.factor,
            client=client,
            priority=priority,
            deadline=deadline,
        )

    def _feed_soon(self) -> None:
        """Feeds the engines as soon as what is coming in is there, if one is free and there is something for it."""
        if self._coalescing is None and self._queue.sequences and self._free_worker() is not None:
            self._coalescing = CoalescingWindow(self._clock.now(), self._queue.sequences)
            asyncio.get_running_loop().call_soon(self._coalesce)

    def _feed_next(self) -> None:
        """Feeds an engine that has become free with what waits: nobody else need be waited for."""
        if self._coalescing is None and (self._retries or self._queue.sequences):
            asyncio.get_running_loop().call_soon(self._feed)

    def _coalesce(self) -> None:
        if self._coalescing is not None and self._coalescing.goes_on(self._clock.now(), self._queue.sequences):
            asyncio.get_running_loop().call_soon(self._coalesce)
        else:
            self._coalescing = None
            self._feed()

    def _feed(self) -> None:
        """Gives every engine that is free what there is for it."""
        try:
            while self._feeding and (worker := self._free_worker()) is not None:
                if (part := self._retries.next()) is not None:
                    self._start(worker, part.entries, budget=part.budget)
                elif self._queue.sequences:
                    self._start_next(worker)
                else:
                    break
        except Exception as error:  # noqa: BLE001  # a fault of ours: told, and seen by probes
            reason = f"{type(error).__name__} while a batch was chosen"
            self._fail_for_good(reason, InternalError("internal error while choosing a batch"), cause=error)

    def _start_next(self, worker: EngineWorker) -> None:
        entries, shape = self._choose()
        if entries:
            self._start(worker, entries, shape, budget=self._planner.max_tokens)

    def _set_stalled(self, stalled: bool) -> None:
        self._stalled = stalled
        if stalled:
            self._log.error("an engine is late", batches=for_log(self.records()))
        else:
            self._log.warning("the engine that was late is back")

    def _fail_engine(self, reason: str) -> None:
        """Nothing will come of the engines any more: nobody waits for it."""
        self._fail_for_good(reason, ModelNotReady("the model's engine failed before this request's turn came"))

    def _fail_for_good(self, reason: str, error: ServiceError, cause: Exception | None = None) -> None:
        """What runs may be what did it, so it must not be tried elsewhere; what waits is told `error`."""
        if self.failure:
            return
        self.failure = reason
        self._feeding = False
        self.reject()
        blamed: set[int] = set()
        for flight, entries in self._in_flight.empty():
            flight.outcome = BatchOutcome.ABORTED
            # The first of each engine runs. What is packed behind it waits like the rest.
            runs = flight.engine not in blamed
            blamed.add(flight.engine)
            blame = EngineFailure(f"{reason} while this sequence was with it")
            self._in_flight.fail(entries, blame if runs else error)
        self._fail_waiting(error)
        self._log.critical("the model has failed", reason=reason, batches=for_log(self.records()), exc_info=cause)

    def _fail_waiting(self, error: ServiceError) -> None:
        waiting = self._queue.window(self._queue.sequences)
        fail(waiting, error)
        self._queue.cancel(waiting)
        self._retries.fail(error)

    def _free_worker(self) -> EngineWorker | None:
        """The one with the least to do."""
        free = [worker for worker in self._workers if worker.free]
        return min(free, key=lambda worker: worker.in_flight, default=None)

    def _choose(self) -> tuple[Entries, BatchShape]:
        """Takes the next micro-batch out of the queue; no entries where nothing is wanted any more."""
        now = self._clock.now()
        self._fail_expired(now)
        window = self._queue.window(self._max_window_sequences)
        if not window:
            return [], BatchShape(0, 0)
        chosen = self._planner.plan_next([entry.length for entry in window])
        # In order of turn, so that the most urgent comes first.
        entries = [window[row] for row in sorted(chosen.rows)]
        for entry in entries:
            self._metrics.queue_wait_s.observe(now - entry.admitted_at)
        self._queue.take(entries)
        self._in_flight.take(entries)
        return entries, chosen.shape

    def _start(self, worker: EngineWorker, entries: Entries, shape: BatchShape | None = None, *, budget: int) -> None:
        """Hands one batch to an engine; in the smallest shape that holds it, where none was chosen."""
        try:
            if shape is None:
                grid = worker.engine.signature.grid
                shape = grid.fit(len(entries), max(entry.length for entry in entries))
            outputs = frozenset(output for entry in entries for output in entry.item.job.outputs)
            batch = Batch.pack([entry.item.encoding for entry in entries], shape)
            flight = InFlightBatch(
                engine=self._workers.index(worker),
                budget=budget,
                shape=shape,
                admitted_at=min(entry.admitted_at for entry in entries),
                chosen_at=self._clock.now(),
                real_tokens=sum(entry.item.encoding.real_tokens for entry in entries),
                outputs=outputs,
                expected_s=self._planner.cost.seconds(shape.rows, shape.length) * self._correction.factor,
            )
            self._in_flight.begin(flight, entries)
            self._recorder.add(flight)
            worker.run(batch, outputs, flight.expected_s, partial(self._finish, flight))
        except Exception:  # noqa: BLE001  # a fault of ours, but no caller may wait for ever because of it
            self._completion.abort(entries)

    def _finish(self, flight: InFlightBatch, came: BatchResult | BaseException) -> None:
        """Takes one batch back, and has what must be run again run next."""
        self._completion.complete(flight, came, self._clock.now())
        if self._retries and not self._feeding:
            self._fail_waiting(_stopped())
        elif self._retries:
            self._feed_next()

    def _fail_expired(self, now: float) -> None:
        stalled = self._queue.expire(now)
        if stalled:
            fail(stalled, _deadline_exceeded())


def _deadline_exceeded() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the answer was there")


def _stopped() -> ShuttingDown:
    return ShuttingDown("the service stopped before this request's turn came")
