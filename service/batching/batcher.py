"""Awaits requests, runs batches, answers rows.

Everything here runs on the event loop; only `EngineRunner` touches the engine's thread. Decisions are
made by pure parts: `RequestQueue` says whose turn it is, `Planner` who shares a batch.

There is no timer that holds a sequence back for company. While one batch runs, arrivals wait; when it is about
to end, the planner partitions all that wait and the micro-batch with the most urgent sequence goes next.
So batches grow with load by themselves, and an idle engine starts at once.

Each admitted row is answered exactly once: with its output, or with an error of its own. A batch that fails is
run again in halves until the row at fault is alone; the other rows get their answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from service.batching.clock import Clock
from service.batching.cost import Correction, CostModel
from service.batching.job import Job, Row
from service.batching.planner import Planner
from service.batching.queue import Entry, RequestQueue
from service.batching.runner import EngineRunner, Ran
from service.errors import DeadlineExceeded, EngineFailure, InternalError, ServiceError, ShuttingDown
from service.metrics import BatchMetrics
from service.tensors import Batch, BatchShape, Encoding, Outputs, RowOutput


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
        self._arrival = asyncio.Event()
        self._refusing = False
        self._batches: set[asyncio.Task[None]] = set()
        self._feeds: list[asyncio.Task[None]] = []
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
        return bool(self._feeds) and not any(feed.done() for feed in self._feeds)

    def start(self) -> None:
        """Begins to feed the engines."""
        self._feeds = [asyncio.create_task(self._feed(runner)) for runner in self._runners]

    async def submit(
        self,
        encodings: Sequence[Encoding],
        outputs: Outputs,
        *,
        client: str = "",
        priority: int = 1,
        timeout_s: float | None = None,
    ) -> list[RowOutput]:
        """Waits for the outputs of all `encodings`, in their order.

        Cancelling the call takes what still waits out of the queue.

        Args:
            encodings: Checked sequences, at least one.
            outputs: What to compute, at least one.
            client: Whose turn it is.
            priority: Lower goes first.
            timeout_s: Seconds after which the answer is no longer wanted.

        Raises:
            Overloaded: The queue has no room for all of them.
            ShuttingDown: Nothing new is admitted.
            DeadlineExceeded: `timeout_s` passed first.
            EngineFailure: The engine fails on one of them.
        """
        self._check_open()
        now = self._clock.now()
        job = Job(len(encodings), outputs)
        deadline = None if timeout_s is None else now + timeout_s
        entries = [self._entry(job, index, row, client, priority, deadline) for index, row in enumerate(encodings)]
        self._queue.admit(entries, now)
        self._arrival.set()
        timer = None if timeout_s is None else self._clock.call_later(timeout_s, lambda: job.fail(_too_late()))
        try:
            return await job.answer
        finally:
            if timer is not None:
                timer.cancel()
            self._queue.cancel(entries)

    def check_room(self, sequences: int) -> None:
        """Refuses so many sequences, of whatever length, where `submit` would: before work is put into them.

        Raises:
            Overloaded: The queue has no room for them.
            ShuttingDown: Nothing new is admitted.
        """
        self._check_open()
        self._queue.check_room(sequences, tokens=sequences)

    def refuse(self) -> None:
        """Admits nothing new from now on; what was admitted is answered."""
        self._refusing = True

    async def close(self) -> None:
        """Stops feeding, fails what still waits, and closes the engines."""
        self.refuse()
        for feed in self._feeds:
            feed.cancel()
        await asyncio.gather(*self._feeds, return_exceptions=True)
        waiting = self._queue.window(self._queue.sequences)
        self._fail(waiting, ShuttingDown("the service stopped before this request's turn came"))
        self._queue.cancel(waiting)
        await asyncio.gather(*self._batches, return_exceptions=True)
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

    async def _feed(self, runner: EngineRunner) -> None:
        """Keeps one engine busy for as long as there is work."""
        while True:
            await self._arrival.wait()
            await runner.free.wait()
            entries, shape = self._choose()
            if entries:
                task = asyncio.create_task(self._run(runner, entries, shape))
                self._batches.add(task)
                task.add_done_callback(self._batches.discard)
                await asyncio.sleep(0)  # lets the batch reach the runner, which then says whether it is free

    def _choose(self) -> tuple[Sequence[Entry[Row]], BatchShape]:
        """Takes the next micro-batch out of the queue; no entries where nothing is wanted any more."""
        self._fail(self._queue.expire(self._clock.now()), _too_late())
        window = self._queue.window(self._max_window_sequences)
        if not window:
            self._arrival.clear()
            return [], BatchShape(0, 0)
        chosen = self._planner.urgent([entry.length for entry in window])
        # In order of turn, so that the most urgent comes first.
        entries = [window[row] for row in sorted(chosen.rows)]
        self._queue.take(entries)
        self.running_sequences += len(entries)
        now = self._clock.now()
        for entry in entries:
            self._metrics.queue_wait_s.observe(now - entry.admitted_at)
        return entries, chosen.shape

    async def _run(self, runner: EngineRunner, entries: Sequence[Entry[Row]], shape: BatchShape) -> None:
        try:
            await self._attempt(runner, entries, shape)
        except Exception:  # noqa: BLE001  # a fault of ours, but no caller may wait for ever because of it
            self._log.exception("batch failed outside the engine", rows=len(entries))
            self._fail(entries, InternalError("internal error while batching"))
        finally:
            self.running_sequences -= len(entries)

    async def _attempt(self, runner: EngineRunner, entries: Sequence[Entry[Row]], shape: BatchShape) -> None:
        """Runs `entries`; where the engine raises, runs them again in halves until one row is left to blame."""
        outputs = frozenset(output for entry in entries for output in entry.item.job.outputs)
        batch = Batch.pack([entry.item.encoding for entry in entries], shape)
        predicted_s = self._planner.cost.seconds(shape.rows, shape.length)
        try:
            ran = await runner.run(batch, outputs, predicted_s * self._correction.factor)
        except Exception as error:  # noqa: BLE001  # an engine may raise anything, and only rows may fail of it
            self._metrics.engine_failures.inc()
            self._log.error("engine failed", rows=len(entries), length=shape.length, error=f"{error!r:.500}")
            await self._bisect(runner, entries, error)
        else:
            self._correction.observe(predicted_s, ran.seconds)
            self._observe(ran, entries, shape)
            self._answer(ran, entries)

    async def _bisect(self, runner: EngineRunner, entries: Sequence[Entry[Row]], error: Exception) -> None:
        if len(entries) == 1:
            failure = EngineFailure("the engine failed on this sequence")
            failure.__cause__ = error
            self._fail(entries, failure)
            return
        middle = len(entries) // 2
        for half in (entries[:middle], entries[middle:]):
            longest = max(entry.length for entry in half)
            await self._attempt(runner, half, runner.engine.signature.grid.fit(len(half), longest))

    def _answer(self, ran: Ran, entries: Sequence[Entry[Row]]) -> None:
        for index, entry in enumerate(entries):
            row = entry.item
            if ran.finite[index]:
                row.job.deliver(row.index, ran.output.row(index, row.encoding, row.job.outputs))
            else:
                self._metrics.non_finite_rows.inc()
                self._fail([entry], EngineFailure("the model's output for this sequence is not finite"))

    def _observe(self, ran: Ran, entries: Sequence[Entry[Row]], shape: BatchShape) -> None:
        self._metrics.compute_s.observe(ran.seconds)
        self._metrics.sequences.observe(len(entries))
        self._metrics.tokens.observe(shape.tokens)
        self._metrics.real_tokens.inc(sum(entry.item.encoding.real_tokens for entry in entries))
        self._metrics.padded_tokens.inc(shape.tokens)

    @staticmethod
    def _fail(entries: Sequence[Entry[Row]], error: ServiceError) -> None:
        for entry in entries:
            entry.item.job.fail(error)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the answer was there")
