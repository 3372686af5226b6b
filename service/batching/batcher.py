"""Awaits requests, runs batches, answers rows.

Everything here runs on the event loop; only `EngineRunner` touches the engine's thread. Decisions are
made by pure parts: `RequestQueue` says whose turn it is, `Planner` who shares a batch.

There is no timer that holds a sequence back for company. While one batch runs, arrivals wait; when it is about
to end, the planner partitions all that wait and the micro-batch with the most urgent sequence goes next.
So batches grow with load by themselves, and an idle engine starts as soon as the event loop has taken in what is there
(`Gathering`).

Each admitted row is answered exactly once: with its output, or with an error of its own. A batch that fails is
run again in halves, before anything that waits, until the row at fault is alone; the other rows get their answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial

import structlog

from service.batching.clock import Clock
from service.batching.cost import Correction, CostModel
from service.batching.gathering import Gathering
from service.batching.job import Job, Row
from service.batching.planner import Planner
from service.batching.queue import Entry, RequestQueue
from service.batching.runner import EngineRunner, Ran
from service.errors import DeadlineExceeded, EngineFailure, InternalError, ServiceError, ShuttingDown
from service.metrics import BatchMetrics
from service.tensors import Batch, BatchShape, Encoding, Outputs, RowOutput
from service.tracing.base import RequestSpan


class Batcher:
    """Groups the sequences of all callers of one model into batches.

    Args:
        queue: Where they wait.
        planner: Cuts the batches.
        runners: The engines, at least one; all share the queue.
        clock: Tells the time.
        metrics: Where batches are counted.
        log: Where engine failures are written.
        max_window_sequences: How many waiting sequences the planner looks at.
    """

    def __init__(
        self,
        *,
        queue: RequestQueue[Row],
        planner: Planner,
        runners: Sequence[EngineRunner],
        clock: Clock,
        metrics: BatchMetrics,
        log: structlog.typing.FilteringBoundLogger,
        max_window_sequences: int,
    ) -> None:
        self._queue = queue
        self._planner = planner
        self._runners = runners
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._max_window_sequences = max_window_sequences
        self._correction = Correction()
        self._refusing = False
        self._feeding = False
        self._gathering: Gathering | None = None
        self._halves: deque[Sequence[Entry[Row]]] = deque()  # of batches that failed, to be run before what waits
        self._idle = asyncio.Event()
        self._idle.set()
        self.running_sequences = 0

    @property
    def queue(self) -> RequestQueue[Row]:
        """Where sequences wait; for gauges to read."""
        return self._queue

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
        """Whether every engine is being fed."""
        return self._feeding

    def start(self) -> None:
        """Begins to feed the engines."""
        self._feeding = True
        for runner in self._runners:
            runner.notify(self._feed_next)
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
        """
        self._check_open()
        if timeout_s is not None and timeout_s <= 0:
            raise _too_late()
        now = self._clock.now()
        job = Job(len(encodings), outputs, span)
        deadline = None if timeout_s is None else now + timeout_s
        entries = [self._entry(job, index, row, client, priority, deadline) for index, row in enumerate(encodings)]
        self._queue.admit(entries, now, busy_s=min(runner.remaining_s for runner in self._runners))
        self._feed_soon()
        timer = None if timeout_s is None else self._clock.call_later(timeout_s, lambda: job.fail(_too_late()))
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

    def refuse(self) -> None:
        """Admits nothing new from now on; what was admitted is answered."""
        self._refusing = True

    async def close(self) -> None:
        """Stops feeding, fails what still waits, and closes the engines."""
        self.refuse()
        self._feeding = False
        self._fail_waiting(ShuttingDown("the service stopped before this request's turn came"))
        await self._idle.wait()
        await asyncio.gather(*(runner.close() for runner in self._runners))

    def _check_open(self) -> None:
        if self._refusing:
            raise ShuttingDown("the service is shutting down and admits nothing new")

    def _entry(
        self, job: Job, index: int, encoding: Encoding, client: str, priority: int, deadline: float | None
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
        if self._gathering is None and self._queue.sequences and self._free_runner() is not None:
            self._gathering = Gathering(self._clock.now(), self._queue.sequences)
            asyncio.get_running_loop().call_soon(self._gather)

    def _feed_next(self) -> None:
        """Feeds an engine that has become free with what waits: nobody else need be waited for."""
        if self._gathering is None and (self._halves or self._queue.sequences):
            asyncio.get_running_loop().call_soon(self._feed)

    def _gather(self) -> None:
        if self._gathering is not None and self._gathering.goes_on(self._clock.now(), self._queue.sequences):
            asyncio.get_running_loop().call_soon(self._gather)
        else:
            self._gathering = None
            self._feed()

    def _feed(self) -> None:
        """Gives every engine that is free what there is for it."""
        try:
            while self._feeding and (runner := self._free_runner()) is not None:
                if self._halves:
                    half = self._halves.popleft()
                    self._start(runner, half, self._shape_of(runner, half))
                elif self._queue.sequences:
                    self._start_next(runner)
                else:
                    break
        except Exception:  # noqa: BLE001  # a fault of ours: told, and seen by probes
            self._stop_feeding()

    def _start_next(self, runner: EngineRunner) -> None:
        entries, shape = self._choose()
        if entries:
            self._start(runner, entries, shape)

    def _stop_feeding(self) -> None:
        """After a fault of ours: the service is not ready from now on, and nobody waits for what will not come."""
        self._feeding = False
        self.refuse()
        self._fail_waiting(InternalError("internal error while choosing a batch"))
        self._log.exception("the engines are no longer fed")

    def _fail_waiting(self, error: ServiceError) -> None:
        waiting = self._queue.window(self._queue.sequences)
        self._fail(waiting, error)
        self._queue.cancel(waiting)
        while self._halves:
            half = self._halves.popleft()
            self._fail(half, error)
            self._settle(half)

    def _free_runner(self) -> EngineRunner | None:
        """The one with the least to do."""
        free = [runner for runner in self._runners if runner.free]
        return min(free, key=lambda runner: runner.in_flight, default=None)

    def _choose(self) -> tuple[Sequence[Entry[Row]], BatchShape]:
        """Takes the next micro-batch out of the queue; no entries where nothing is wanted any more."""
        now = self._clock.now()
        self._fail_late(now)
        window = self._queue.window(self._max_window_sequences)
        if not window:
            return [], BatchShape(0, 0)
        chosen = self._planner.urgent([entry.length for entry in window])
        # In order of turn, so that the most urgent comes first.
        entries = [window[row] for row in sorted(chosen.rows)]
        for entry in entries:
            self._metrics.queue_wait_s.observe(now - entry.admitted_at)
        self._queue.take(entries)
        self.running_sequences += len(entries)
        self._idle.clear()
        return entries, chosen.shape

    def _start(self, runner: EngineRunner, entries: Sequence[Entry[Row]], shape: BatchShape) -> None:
        """Hands one batch to an engine."""
        try:
            outputs = frozenset(output for entry in entries for output in entry.item.job.outputs)
            batch = Batch.pack([entry.item.encoding for entry in entries], shape)
            expected_s = self._planner.cost.seconds(shape.rows, shape.length) * self._correction.factor
            runner.run(batch, outputs, expected_s, partial(self._finish, entries, shape))
        except Exception:  # noqa: BLE001  # a fault of ours, but no caller may wait for ever because of it
            self._give_up(entries)

    def _finish(self, entries: Sequence[Entry[Row]], shape: BatchShape, came: Ran | BaseException) -> None:
        """Takes one batch back. Where the engine raised, runs it again in halves until one row is left to blame."""
        try:
            if isinstance(came, Ran):
                self._observe(came, entries, shape)
                self._answer(came, entries)
            else:
                self._metrics.engine_failures.inc()
                self._log.error("engine failed", rows=len(entries), length=shape.length, error=f"{came!r:.500}")
                if len(entries) > 1:
                    self._bisect(entries)
                    return
                self._blame(entries, came)
            self._settle(entries)
        except Exception:  # noqa: BLE001  # as above
            self._give_up(entries)

    def _bisect(self, entries: Sequence[Entry[Row]]) -> None:
        """Has both halves run before anything that waits, one at a time like any batch."""
        middle = len(entries) // 2
        self._halves.extend((entries[:middle], entries[middle:]))
        if self._feeding:
            self._feed_next()
        else:
            self._fail_waiting(ShuttingDown("the service stopped before this request's turn came"))

    @staticmethod
    def _shape_of(runner: EngineRunner, entries: Sequence[Entry[Row]]) -> BatchShape:
        return runner.engine.signature.grid.fit(len(entries), max(entry.length for entry in entries))

    def _blame(self, entries: Sequence[Entry[Row]], error: BaseException) -> None:
        failure = EngineFailure("the engine failed on this sequence")
        failure.__cause__ = error
        self._fail(entries, failure)

    def _give_up(self, entries: Sequence[Entry[Row]]) -> None:
        self._fail(entries, InternalError("internal error while batching"))
        self._settle(entries)
        self._log.exception("batch failed outside the engine", rows=len(entries))

    def _settle(self, entries: Sequence[Entry[Row]]) -> None:
        """Each of `entries` is answered."""
        self.running_sequences -= len(entries)
        if not self.running_sequences:
            self._idle.set()

    def _answer(self, ran: Ran, entries: Sequence[Entry[Row]]) -> None:
        for index, entry in enumerate(entries):
            row = entry.item
            if ran.finite[index]:
                row.job.deliver(row.index, ran.output.row(index, row.encoding, row.job.outputs))
            else:
                self._metrics.non_finite_rows.inc()
                self._fail([entry], EngineFailure("the model's output for this sequence is not finite"))

    def _observe(self, ran: Ran, entries: Sequence[Entry[Row]], shape: BatchShape) -> None:
        self._correction.observe(self._planner.cost.seconds(shape.rows, shape.length), ran.seconds)
        self._metrics.compute_s.observe(ran.seconds)
        self._metrics.sequences.observe(len(entries))
        self._metrics.tokens.observe(shape.tokens)
        self._metrics.real_tokens.inc(sum(entry.item.encoding.real_tokens for entry in entries))
        self._metrics.padded_tokens.inc(shape.tokens)

    def _fail_late(self, now: float) -> None:
        late = self._queue.expire(now)
        if late:
            self._fail(late, _too_late())

    @staticmethod
    def _fail(entries: Sequence[Entry[Row]], error: ServiceError) -> None:
        for entry in entries:
            entry.item.job.fail(error)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the answer was there")
