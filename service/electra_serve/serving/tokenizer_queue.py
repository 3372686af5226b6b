"""Fair queue for the tokenizer's threads.

A request waits as turns of about `STEP_CHARACTERS` characters, in a `RequestQueue` like that of the batcher: ordered by
priority, fairly between clients, bounded, and rejected if its turn would come after its deadline. One thread takes the
turns in order, so no client waits for more than one turn of another.

A text that its tokenizer cannot cut makes a longer turn, in native code that does not hold the GIL. While one is
overdue, a second thread takes the turns of short requests.

On the event loop only, except for `_Job.advance`.
"""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from prometheus_client import Histogram

from electra_serve.batching.admission import SHARE, QueueLimits
from electra_serve.batching.clock import Clock
from electra_serve.batching.cost_model import DriftCorrection
from electra_serve.batching.queue import QueueEntry, RequestQueue
from electra_serve.errors import Overloaded, PayloadTooLarge
from electra_serve.presets.tokenizers.steps import STEP_CHARACTERS, Steps

CHARACTER_S: Final = 5e-7
"""Seconds per character, before any was measured."""
OVERDUE_S: Final = 0.05
"""Time after which a turn no longer keeps short requests waiting."""

T = TypeVar("T")


class _Job(Generic[T]):
    """Tokenizes one request.

    Args:
        steps: Its steps.

    Attributes:
        result: The result of its last step, or the error of any.
        begun: Its first turn has begun.
        characters: Characters read so far.
    """

    def __init__(self, steps: Steps[T]) -> None:
        self.result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.begun = False
        self.characters = 0
        self._steps = steps

    def advance(self, until: float) -> list[T]:
        """Does steps until `until` characters of the request are read; returns the result, if it was the last."""
        while self.characters < until:
            try:
                self.characters += next(self._steps)
            except StopIteration as end:
                return [end.value]
        return []

    def settle(self, turn: asyncio.Future[list[T]]) -> None:
        """Takes the outcome of a turn."""
        if self.result.done() or turn.cancelled():
            return
        if (error := turn.exception()) is not None:
            self.result.set_exception(error)
        elif result := turn.result():
            self.result.set_result(result[0])


@dataclass(slots=True, eq=False, kw_only=True)
class _Turn(QueueEntry):
    """A part of a job.

    Attributes:
        job: The job.
        until: Characters of the job that are read when the turn ends.
        only: It is the whole job.
    """

    job: _Job[Any]
    until: float
    only: bool


class TokenizerQueue:
    """Runs the steps of tokenizers on threads, in fair order.

    Args:
        max_characters: Most characters that wait.
        clock: Measures turns.
        wait_s: Takes the time from a request's admission to its first turn.
    """

    def __init__(self, max_characters: int, clock: Clock, wait_s: Histogram) -> None:
        self.max_characters = max_characters
        self._clock = clock
        self._wait_s = wait_s
        self._queue = RequestQueue[_Turn](QueueLimits(max_sequences=max_characters, max_tokens=max_characters))
        self._correction = DriftCorrection()
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokenizer")
        self._main: _Turn | None = None
        self._relief: _Turn | None = None
        self._overdue = False

    @property
    def characters(self) -> int:
        """Characters that wait."""
        return self._queue.tokens

    @property
    def work_s(self) -> float:
        """Estimated time to tokenize everything that waits."""
        return self._queue.work_s

    async def run(
        self, steps: Steps[T], characters: int, *, client: str = "", priority: int = 1, timeout_s: float | None = None
    ) -> T:
        """Waits for the result of all `steps`. Cancelling the call takes the remaining turns out of the queue.

        Args:
            steps: Steps of one request.
            characters: Characters that they read in total, at least 1.
            client: The client that they count for.
            priority: Lower goes first.
            timeout_s: Seconds after which the result is useless; the caller has to cancel the call then.

        Raises:
            Overloaded: There is no room, or the last turn would come after `timeout_s`.
            PayloadTooLarge: There would be no room in an empty queue.
        """
        now = self._clock.now()
        self._check_room(client, characters)
        job = _Job(steps)
        turns = self._turns(job, characters, client, priority, None if timeout_s is None else now + timeout_s)
        self._queue.admit(turns, now)
        self._feed()
        try:
            return await job.result
        finally:
            self._queue.cancel(turns)

    def _check_room(self, client: str, characters: int) -> None:
        if characters > self.max_characters:
            raise PayloadTooLarge(
                f"at most {self.max_characters} characters may wait to be tokenized; received {characters}",
                field="text",
            )
        try:
            self._queue.check_room(client, 1, characters)
        except Overloaded as error:
            raise Overloaded(
                f"at most {self.max_characters} characters may wait to be tokenized, those of one client at most "
                f"{SHARE} times what they leave free; {self.characters} are waiting, the request has {characters}",
                retry_after_s=error.retry_after_s,
            ) from error

    def _turns(self, job: _Job[T], characters: int, client: str, priority: int, deadline: float | None) -> list[_Turn]:
        ends = [*range(STEP_CHARACTERS, characters, STEP_CHARACTERS), characters]
        starts = [0, *ends[:-1]]
        character_s = CHARACTER_S * self._correction.factor
        return [
            _Turn(
                job=job,
                until=math.inf if end == characters else end,
                only=len(ends) == 1,
                length=end - start,
                work_s=(end - start) * character_s,
                client=client,
                priority=priority,
                deadline=deadline,
            )
            for start, end in zip(starts, ends, strict=True)
        ]

    def _feed(self) -> None:
        """Gives a free thread its next turn."""
        if self._main is None and self._queue.sequences:
            self._main = self._queue.window(1)[0]
            self._start(self._main)
        if self._main is not None and self._overdue and self._relief is None:
            self._relief = next((turn for turn in self._queue.window(self._queue.sequences) if turn.only), None)
            if self._relief is not None:
                self._start(self._relief)

    def _start(self, turn: _Turn) -> None:
        self._queue.take([turn])
        now = self._clock.now()
        job = turn.job
        if not job.begun:
            job.begun = True
            self._wait_s.observe(now - turn.admitted_at)
        overdue = self._clock.call_later(OVERDUE_S, partial(self._set_overdue, turn))
        running = asyncio.get_running_loop().run_in_executor(self._threads, job.advance, turn.until)

        def end(outcome: asyncio.Future[list[Any]]) -> None:
            overdue.cancel()
            self._correction.observe((job.characters - before) * CHARACTER_S, self._clock.now() - now)
            job.settle(outcome)
            self._end(turn)

        before = job.characters
        running.add_done_callback(end)

    def _set_overdue(self, turn: _Turn) -> None:
        if turn is self._main:
            self._overdue = True
            self._feed()

    def _end(self, turn: _Turn) -> None:
        if turn is self._relief:
            self._relief = None
        else:
            self._main = None
            self._overdue = False
        self._feed()
