"""Admits requests, awaits their results, and fails them if the engines fail.

Each admitted row gets exactly one result: its output, or an error. A model with a stalled engine is not alive until the
engine recovers, or has failed. Then the running batch fails with `engine_failure`. Queued requests fail with
`model_not_ready`, which is safe to retry, and the process has to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog
from opentelemetry.trace import Span

from electra_serve.batching.clock import Clock
from electra_serve.batching.completion import BatchCompletion, BatchObserver
from electra_serve.batching.cost_model import CostTable
from electra_serve.batching.dispatcher import Dispatcher, deadline_exceeded, stopped
from electra_serve.batching.flight_recorder import BatchOutcome, BatchRecord, FlightRecorder, for_log
from electra_serve.batching.in_flight import InFlight, RetryQueue, fail
from electra_serve.batching.pending import PendingRequest, PendingRow
from electra_serve.batching.queue import RequestQueue
from electra_serve.batching.watchdog import Watchdog
from electra_serve.batching.worker_pool import WorkerPool
from electra_serve.errors import EngineFailure, InternalError, ModelNotReady, ServiceError, ShuttingDown
from electra_serve.observability.metrics import BatchMetrics
from electra_serve.tensors import Encoding, Outputs, RowOutput

ENGINE_CLOSE_S: Final = 10.0  # closing frees memory, which takes less than a second


class Batcher:
    """Groups the sequences of all requests for one model into batches."""

    def __init__(
        self,
        *,
        queue: RequestQueue[PendingRow],
        pool: WorkerPool,
        clock: Clock,
        metrics: BatchMetrics,
        log: structlog.typing.FilteringBoundLogger,
        max_window_sequences: int,  # that the planner sees
        hang_timeout_s: float,  # a longer stall is a failure
        recorder: FlightRecorder,
        observe: BatchObserver | None = None,  # called after the rows of a batch have their results
    ) -> None:
        self._queue = queue
        self._pool = pool
        self._clock = clock
        self._log = log
        self._recorder = recorder
        self._watchdog = Watchdog(
            pool.workers, hang_timeout_s, clock, stalled=self._set_stalled, failed=self._fail_engine
        )
        self._rejecting = False
        self._stalled = False
        self._in_flight = InFlight()
        self._retries = RetryQueue(self._in_flight, pool.shared.planner)
        completion = BatchCompletion(
            in_flight=self._in_flight,
            retries=self._retries,
            metrics=metrics,
            log=log,
            observe=observe,
        )
        self._dispatcher = Dispatcher(
            queue=queue,
            pool=pool,
            clock=clock,
            in_flight=self._in_flight,
            retries=self._retries,
            completion=completion,
            recorder=recorder,
            metrics=metrics,
            max_window_sequences=max_window_sequences,
            on_fault=self._fail_dispatching,
        )
        self._notify_alive: Callable[[], None] = lambda: None
        self.failure = ""  # reason for the failure of the model; empty if it has not failed

    @property
    def queue(self) -> RequestQueue[PendingRow]:
        """The queue, for gauges."""
        return self._queue

    @property
    def queued_work_s(self) -> float:
        """Estimated seconds until the engines have computed everything queued."""
        return self._queue.work_s / len(self._pool.shared.workers)

    @property
    def running_sequences(self) -> int:
        """Number of sequences that left the queue and have no result yet."""
        return self._in_flight.sequences

    @property
    def costs(self) -> CostTable:
        """Seconds of each batch shape under load, as timed at warm-up."""
        return self._pool.shared.planner.costs

    @property
    def batch_tokens(self) -> int:
        """Limit of positions in a batch of several sequences, padding included."""
        return self._pool.shared.planner.batch_positions

    @property
    def alive(self) -> bool:
        """True while batches are dispatched and no engine is stalled."""
        return self._dispatcher.feeding and not self._stalled

    def records(self) -> tuple[BatchRecord, ...]:
        """Returns the last batches, oldest first."""
        return self._recorder.records()

    def notify(self, when_alive_changes: Callable[[], None]) -> None:
        """Registers a callback for changes of `alive` or `failure`; it runs on the event loop."""
        self._notify_alive = when_alive_changes

    def start(self) -> None:
        """Starts dispatching batches."""
        self._dispatcher.start()
        self._watchdog.start()

    async def submit(
        self,
        encodings: Sequence[Encoding],
        outputs: Outputs,
        *,
        client: str = "",
        priority: int = 1,
        timeout_s: float | None = None,
        span: Span | None = None,
        admitted: bool = False,
    ) -> list[RowOutput]:
        """Queues `encodings` and returns their outputs in the same order. Cancellation removes queued rows.

        A part of an `admitted` request is accepted while the service shuts down, until it stops.

        Raises:
            Overloaded: The queue has no room for all of them, or the estimated wait exceeds `timeout_s`.
            ShuttingDown: The service accepts no new requests.
            DeadlineExceeded: `timeout_s` passed first.
            EngineFailure: The engine failed on one of them.
            ModelNotReady: The engine failed before they ran.
        """
        self._check_open(admitted=admitted)
        if timeout_s is not None and timeout_s <= 0:
            raise deadline_exceeded()
        now = self._clock.now()
        request = PendingRequest(len(encodings), outputs, span)
        deadline = None if timeout_s is None else now + timeout_s
        rows = [self._row(request, index, row, client, priority, deadline) for index, row in enumerate(encodings)]
        self._queue.admit(rows, now, busy_s=self._pool.remaining_s)
        self._dispatcher.feed_soon()
        timer = (
            None if timeout_s is None else self._clock.call_later(timeout_s, lambda: request.fail(deadline_exceeded()))
        )
        try:
            return await request.result
        finally:
            if timer is not None:
                timer.cancel()
            self._queue.cancel(rows)

    def ensure_capacity(self, client: str, sequences: int, tokens: int, *, admitted: bool = False) -> None:
        """Rejects sequences that `submit` would reject, before work is done for them.

        Raises:
            Overloaded: The queue has no capacity for them.
            ShuttingDown: The service accepts no new requests.
        """
        self._check_open(admitted=admitted)
        self._queue.ensure_capacity(client, sequences, tokens)

    @contextmanager
    def reserve(self, client: str, sequences: int, *, admitted: bool = False) -> Iterator[None]:
        """Reserves capacity for sequences that are still being tokenized; raises as `submit` does."""
        self.ensure_capacity(client, sequences, tokens=sequences, admitted=admitted)
        with self._queue.reserve(client, sequences):
            yield

    def reject(self) -> None:
        """Rejects new requests from now on; admitted ones still get their results."""
        self._rejecting = True

    async def close(self, within_s: float | None = None) -> bool:
        """Stops dispatching, fails queued requests, and closes the engines after their running batches.

        `within_s` limits the running batches, and again closing; by default the watchdog and `ENGINE_CLOSE_S` do.
        Returns True if every engine was closed; the others are abandoned with their threads, which keep their memory.
        """
        self.reject()
        self._dispatcher.stop()
        self._fail_waiting(stopped())
        try:
            await asyncio.wait_for(self._in_flight.idle.wait(), within_s)
        except TimeoutError:
            self._fail_engine("an engine did not finish in time")
        self._watchdog.stop()
        closed = not self.failure and await self._close_engines(ENGINE_CLOSE_S if within_s is None else within_s)
        if not closed:
            for worker in self._pool.workers:
                worker.abandon()
        return closed

    async def _close_engines(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                outcomes = await asyncio.gather(
                    *(worker.close() for worker in self._pool.workers), return_exceptions=True
                )
        except TimeoutError:
            self._log.error("engine not closed", reason=f"still closing after {within_s:g} s")
            return False
        reasons = [f"{error!r:.500}" for error in outcomes if error is not None]
        for reason in reasons:
            self._log.error("engine not closed", reason=reason)
        return not reasons

    def ensure_open(self) -> None:
        """Raises `ShuttingDown` or `ModelNotReady` if no new request is accepted."""
        self._check_open(admitted=False)

    def _check_open(self, *, admitted: bool) -> None:
        if self.failure:
            raise ModelNotReady("the model's engine has failed; the service is about to restart")
        if self._rejecting and not (admitted and self._dispatcher.feeding):
            raise ShuttingDown("the service is shutting down and accepts no new requests")

    def _row(
        self,
        request: PendingRequest,
        index: int,
        encoding: Encoding,
        client: str,
        priority: int,
        deadline: float | None,
    ) -> PendingRow:
        return PendingRow(
            request=request,
            index=index,
            encoding=encoding,
            length=encoding.compute_length,
            work_s=self._pool.shared.sequence_s(encoding.compute_length),
            client=client,
            priority=priority,
            deadline=deadline,
        )

    def _set_stalled(self, stalled: bool) -> None:
        self._stalled = stalled
        if stalled:
            self._log.error("engine stalled", batches=for_log(self.records()))
        else:
            self._log.warning("engine recovered")
        self._notify_alive()

    def _fail_engine(self, reason: str) -> None:
        self._fail_model(reason, ModelNotReady("the model's engine failed before this request ran"))

    def _fail_dispatching(self, error: Exception) -> None:
        reason = f"{type(error).__name__} while planning a batch"
        self._fail_model(reason, InternalError("internal error while planning a batch"), cause=error)

    def _fail_model(self, reason: str, error: ServiceError, cause: Exception | None = None) -> None:
        """Fails running batches with `engine_failure`, since they may be the cause, and queued rows with `error`."""
        if self.failure:
            return
        self.failure = reason
        self._dispatcher.stop()
        self.reject()
        failed_engines: set[int] = set()
        for batch, rows in self._in_flight.empty():
            batch.outcome = BatchOutcome.ABORTED
            running = batch.engine not in failed_engines  # an engine's second batch is packed, but has not started
            failed_engines.add(batch.engine)
            failure = EngineFailure(f"{reason} while this sequence was running")
            self._in_flight.fail(rows, failure if running else error)
        self._fail_waiting(error)
        self._log.critical("model failed", reason=reason, batches=for_log(self.records()), exc_info=cause)
        self._notify_alive()

    def _fail_waiting(self, error: ServiceError) -> None:
        waiting = self._queue.window(self._queue.sequences)
        fail(waiting, error)
        self._queue.cancel(waiting)
        self._retries.fail(error)
