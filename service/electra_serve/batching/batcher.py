"""Awaits requests, runs batches, answers rows.

Everything here runs on the event loop; only `EngineRunner` touches the engine's thread. Decisions are
made by pure parts: `RequestQueue` says whose turn it is, `Planner` who shares a batch.

There is no timer that holds a sequence back for company. While one batch runs, arrivals wait; when it is about
to end, the planner partitions all that wait and the micro-batch with the most urgent sequence goes next.
So batches grow with load by themselves, and an idle engine starts as soon as the event loop has taken in what is there
(`Gathering`).

Each admitted row is answered exactly once: with its output, or with an error of its own. What becomes of a batch that
an engine hands back is `Landing`'s business: it answers the rows, or leaves parts of the batch to be run again, which
are run before anything that waits.

An engine that is late makes the model not alive until it is back. One that does not come back is a failure: what is in
its hands may have done it, and fails; what waits is told to try again elsewhere; and the process has to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog

from electra_serve.batching.clock import Clock
from electra_serve.batching.coalescing import Gathering
from electra_serve.batching.completion import BatchObserver, Landing
from electra_serve.batching.cost_model import Correction, CostModel
from electra_serve.batching.engine_worker import EngineRunner, Ran
from electra_serve.batching.flight_recorder import BatchOutcome, BatchRecord, Flight, FlightRecorder, for_log
from electra_serve.batching.in_flight import Entries, InFlight, fail
from electra_serve.batching.parts import Parts
from electra_serve.batching.pending import Job, Row
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
        runners: The engines, at least one; all share the queue.
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
        runners: Sequence[EngineRunner],
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
        self._runners = runners
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._max_window_sequences = max_window_sequences
        self._recorder = recorder
        self._watchdog = Watchdog(runners, hang_timeout_s, clock, late=self._set_late, lost=self._lose)
        self._correction = Correction()
        self._refusing = False
        self._late = False
        self._feeding = False
        self._gathering: Gathering | None = None
        self._in_flight = InFlight()
        self._parts = Parts(self._in_flight)
        self._landing = Landing(
            in_flight=self._in_flight,
            parts=self._parts,
            planner=planner,
            correction=self._correction,
            longest=runners[0].engine.signature.grid.max_length,
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
        return self._feeding and not self._late

    def records(self) -> tuple[BatchRecord, ...]:
        """What became of the last batches, oldest first."""
        return self._recorder.records()

    def start(self) -> None:
        """Begins to feed the engines."""
        self._feeding = True
        for runner in self._runners:
            runner.notify(self._feed_next)
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

    async def close(self, within_s: float | None = None) -> bool:
        """Stops feeding, fails what still waits, and closes the engines when they are done.

        Args:
            within_s: Seconds that they have; then they are left to themselves. None: as long as it takes.

        Returns:
            Whether they were closed.
        """
        self.refuse()
        self._feeding = False
        self._fail_waiting(_stopped())
        try:
            await asyncio.wait_for(self._in_flight.idle.wait(), within_s)
        except TimeoutError:
            self._lose("an engine has not ended in time")
        self._watchdog.stop()
        if not self.failure:
            try:
                await asyncio.wait_for(asyncio.gather(*(runner.close() for runner in self._runners)), within_s)
            except TimeoutError:
                self._lose("an engine could not be closed in time")
        if self.failure:
            for runner in self._runners:
                runner.leave()
        return not self.failure

    def _check_open(self) -> None:
        if self.failure:
            raise ModelNotReady("the model's engine has failed, and the service is about to start anew")
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
        if self._gathering is None and (self._parts or self._queue.sequences):
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
                if (part := self._parts.next()) is not None:
                    self._start(runner, part.entries, budget=part.budget)
                elif self._queue.sequences:
                    self._start_next(runner)
                else:
                    break
        except Exception as error:  # noqa: BLE001  # a fault of ours: told, and seen by probes
            reason = f"{type(error).__name__} while a batch was chosen"
            self._fail_for_good(reason, InternalError("internal error while choosing a batch"), cause=error)

    def _start_next(self, runner: EngineRunner) -> None:
        entries, shape = self._choose()
        if entries:
            self._start(runner, entries, shape, budget=self._planner.max_tokens)

    def _set_late(self, late: bool) -> None:
        self._late = late
        if late:
            self._log.error("an engine is late", batches=for_log(self.records()))
        else:
            self._log.warning("the engine that was late is back")

    def _lose(self, reason: str) -> None:
        """Nothing will come of the engines any more: nobody waits for it."""
        self._fail_for_good(reason, ModelNotReady("the model's engine failed before this request's turn came"))

    def _fail_for_good(self, reason: str, error: ServiceError, cause: Exception | None = None) -> None:
        """What runs may be what did it, so it must not be tried elsewhere; what waits is told `error`."""
        if self.failure:
            return
        self.failure = reason
        self._feeding = False
        self.refuse()
        blamed: set[int] = set()
        for flight, entries in self._in_flight.empty():
            flight.outcome = BatchOutcome.GIVEN_UP
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
        self._parts.fail(error)

    def _free_runner(self) -> EngineRunner | None:
        """The one with the least to do."""
        free = [runner for runner in self._runners if runner.free]
        return min(free, key=lambda runner: runner.in_flight, default=None)

    def _choose(self) -> tuple[Entries, BatchShape]:
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
        self._in_flight.take(entries)
        return entries, chosen.shape

    def _start(self, runner: EngineRunner, entries: Entries, shape: BatchShape | None = None, *, budget: int) -> None:
        """Hands one batch to an engine; in the smallest shape that holds it, where none was chosen."""
        try:
            if shape is None:
                grid = runner.engine.signature.grid
                shape = grid.fit(len(entries), max(entry.length for entry in entries))
            outputs = frozenset(output for entry in entries for output in entry.item.job.outputs)
            batch = Batch.pack([entry.item.encoding for entry in entries], shape)
            flight = Flight(
                engine=self._runners.index(runner),
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
            runner.run(batch, outputs, flight.expected_s, partial(self._finish, flight))
        except Exception:  # noqa: BLE001  # a fault of ours, but no caller may wait for ever because of it
            self._landing.give_up(entries)

    def _finish(self, flight: Flight, came: Ran | BaseException) -> None:
        """Takes one batch back, and has what must be run again run next."""
        self._landing.land(flight, came, self._clock.now())
        if self._parts and not self._feeding:
            self._fail_waiting(_stopped())
        elif self._parts:
            self._feed_next()

    def _fail_late(self, now: float) -> None:
        late = self._queue.expire(now)
        if late:
            fail(late, _too_late())


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the answer was there")


def _stopped() -> ShuttingDown:
    return ShuttingDown("the service stopped before this request's turn came")
