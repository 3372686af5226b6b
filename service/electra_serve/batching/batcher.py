"""Admits requests, awaits their results, and fails them if the engines fail.

Everything here runs on the event loop; only `EngineWorker` touches the engine's thread. `RequestQueue` orders the
rows, `Dispatcher` runs them in batches, `BatchCompletion` delivers the results. Each admitted row gets exactly one
result: its output, or an error.

A stalled engine makes the model not alive until it recovers. If it does not recover, the model has failed: the
running batch fails with `engine_failure`, queued requests with `model_not_ready`, which is safe to retry, and the
process has to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog

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
from electra_serve.observability.tracing import RequestSpan
from electra_serve.tensors import Encoding, Outputs, RowOutput

ENGINE_CLOSE_S: Final = 10.0
"""Time for an engine to close while the process goes on: it frees memory, which takes less than a second."""


class Batcher:
    """Groups the sequences of all callers of one model into batches.

    Args:
        queue: Where they wait.
        pool: The engines, and the planners of their batches.
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
        queue: RequestQueue[PendingRow],
        pool: WorkerPool,
        clock: Clock,
        metrics: BatchMetrics,
        log: structlog.typing.FilteringBoundLogger,
        max_window_sequences: int,
        hang_timeout_s: float,
        recorder: FlightRecorder,
        observe: BatchObserver | None = None,
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
        self.failure = ""
        """Why nothing will come of this model any more; empty while something will."""

    @property
    def queue(self) -> RequestQueue[PendingRow]:
        """Where sequences wait; for gauges to read."""
        return self._queue

    @property
    def queued_work_s(self) -> float:
        """Estimated time for the engines to compute everything that waits."""
        return self._queue.work_s / len(self._pool.shared.workers)

    @property
    def running_sequences(self) -> int:
        """How many sequences have left the queue and have no answer yet."""
        return self._in_flight.sequences

    @property
    def costs(self) -> CostTable:
        """Seconds of each batch shape under load, as measured at warm-up."""
        return self._pool.shared.planner.costs

    @property
    def batch_tokens(self) -> int:
        """Most positions in a batch of several sequences, padding included."""
        return self._pool.shared.planner.batch_positions

    @property
    def alive(self) -> bool:
        """Whether every engine is being fed, and none is late."""
        return self._dispatcher.feeding and not self._stalled

    def records(self) -> tuple[BatchRecord, ...]:
        """What became of the last batches, oldest first."""
        return self._recorder.records()

    def notify(self, when_alive_changes: Callable[[], None]) -> None:
        """Has `when_alive_changes` called on the event loop after each change of `alive` or `failure`."""
        self._notify_alive = when_alive_changes

    def start(self) -> None:
        """Begins to feed the engines."""
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

    def ensure_capacity(self, client: str, sequences: int, tokens: int) -> None:
        """Rejects sequences that `submit` would reject, before work is done for them.

        Raises:
            Overloaded: The queue has no capacity for them.
            ShuttingDown: Nothing new is admitted.
        """
        self._check_open()
        self._queue.ensure_capacity(client, sequences, tokens)

    @contextmanager
    def reserve(self, client: str, sequences: int) -> Iterator[None]:
        """Keeps room for so many sequences that are still being prepared: before work is put into them.

        Others of the client are admitted as if these were waiting.

        Raises:
            Overloaded: The queue has no room for them.
            ShuttingDown: Nothing new is admitted.
        """
        self.ensure_capacity(client, sequences, tokens=sequences)
        with self._queue.reserve(client, sequences):
            yield

    def reject(self) -> None:
        """Admits nothing new from now on; what was admitted is answered."""
        self._rejecting = True

    async def close(self, within_s: float | None = None) -> bool:
        """Stops feeding, fails what still waits, and closes the engines when they are done.

        An engine that does not close in time is left to its daemon thread, which keeps its memory.

        Args:
            within_s: Seconds for the batches that run, and again for closing. None: the watchdog limits the first,
                and `ENGINE_CLOSE_S` the second.

        Returns:
            True if every engine was closed.
        """
        self.reject()
        self._dispatcher.stop()
        self._fail_waiting(stopped())
        try:
            await asyncio.wait_for(self._in_flight.idle.wait(), within_s)
        except TimeoutError:
            self._fail_engine("an engine has not ended in time")
        self._watchdog.stop()
        closed = not self.failure and await self._close_engines(ENGINE_CLOSE_S if within_s is None else within_s)
        if not closed:
            for worker in self._pool.workers:
                worker.leave()
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

    def _check_open(self) -> None:
        if self.failure:
            raise ModelNotReady("the model's engine has failed, and the service is about to start anew")
        if self._rejecting:
            raise ShuttingDown("the service is shutting down and admits nothing new")

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
        self._fail_for_good(reason, ModelNotReady("the model's engine failed before this request's turn came"))

    def _fail_dispatching(self, error: Exception) -> None:
        reason = f"{type(error).__name__} while a batch was chosen"
        self._fail_for_good(reason, InternalError("internal error while choosing a batch"), cause=error)

    def _fail_for_good(self, reason: str, error: ServiceError, cause: Exception | None = None) -> None:
        """Fails running batches with `engine_failure`, since they may be the cause, and waiting rows with `error`."""
        if self.failure:
            return
        self.failure = reason
        self._dispatcher.stop()
        self.reject()
        failed_engines: set[int] = set()
        for batch, rows in self._in_flight.empty():
            batch.outcome = BatchOutcome.ABORTED
            # An engine's first batch runs. A second one waits, packed, behind it.
            runs = batch.engine not in failed_engines
            failed_engines.add(batch.engine)
            blame = EngineFailure(f"{reason} while this sequence was with it")
            self._in_flight.fail(rows, blame if runs else error)
        self._fail_waiting(error)
        self._log.critical("model failed", reason=reason, batches=for_log(self.records()), exc_info=cause)
        self._notify_alive()

    def _fail_waiting(self, error: ServiceError) -> None:
        waiting = self._queue.window(self._queue.sequences)
        fail(waiting, error)
        self._queue.cancel(waiting)
        self._retries.fail(error)
