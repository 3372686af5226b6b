"""Fair queue for the tokenizer's threads.

A request is split into turns of about `STEP_CHARACTERS` characters. They wait in a `RequestQueue`: ordered by priority,
fair between clients, bounded, and rejected if they would miss their deadline. One thread takes them in order.
A text that its tokenizer cannot split makes a longer turn, in native code without the GIL. While one is overdue,
a second thread takes the turns of short requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable
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

CHARACTER_S: Final = 5e-7  # estimated seconds per character before the first measurement
OVERDUE_S: Final = 0.05  # time after which short requests pass a turn

T = TypeVar("T")


class _Job(Generic[T]):
    """Tokenizes one request, one turn at a time; `result` is set on the event loop."""

    def __init__(self, steps: Steps[T]) -> None:
        self._loop = asyncio.get_running_loop()
        self.result: asyncio.Future[T] = self._loop.create_future()
        self.characters = 0
        self._steps = steps
        self._ended = False

    def advance(self, until: float) -> None:
        """Runs steps until `until` characters are read; one thread at a time."""
        try:
            while self.characters < until and not self._ended:
                self.characters += next(self._steps)
        except StopIteration as end:
            self._end(self.result.set_result, end.value)
        except BaseException as error:  # noqa: BLE001  # includes a panic in native code
            self._end(self.result.set_exception, error)

    def _end(self, settle: Callable[[Any], None], outcome: object) -> None:
        self._ended = True

        def settle_unless_cancelled() -> None:
            if not self.result.done():
                settle(outcome)

        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(settle_unless_cancelled)


@dataclass(slots=True, eq=False, kw_only=True)
class _Turn(QueueEntry):
    """Part of a job: from `after` characters to `until`, which is infinity for the last turn."""

    job: _Job[Any]
    after: int
    until: float

    @property
    def short(self) -> bool:
        """True if the turn is a whole job."""
        return self.after == 0 and self.until == math.inf


class TokenizerQueue:
    """Runs tokenizer steps on threads, in fair order; `wait_s` takes the seconds until a request's first turn."""

    def __init__(self, max_characters: int, clock: Clock, wait_s: Histogram) -> None:
        self.max_characters = max_characters
        self._clock = clock
        self._wait_s = wait_s
        self._lock = threading.Lock()  # for all below
        self._queue = RequestQueue[_Turn](QueueLimits(max_sequences=max_characters, max_tokens=max_characters))
        self._correction = DriftCorrection()
        self._main = _Thread("tokenizer")
        self._relief = _Thread("tokenizer-relief")

    @property
    def characters(self) -> int:
        """Queued characters."""
        return self._queue.tokens

    @property
    def work_s(self) -> float:
        """Estimated seconds to tokenize all queued characters."""
        return self._queue.work_s

    async def run(
        self, steps: Steps[T], characters: int, *, client: str = "", priority: int = 1, timeout_s: float | None = None
    ) -> T:
        """Runs all `steps` of a request; cancellation removes its remaining turns.

        Raises:
            Overloaded: The queue is full, or the last turn would miss the deadline.
            PayloadTooLarge: The request exceeds the whole queue.
        """
        job = _Job(steps)
        with self._lock:
            now = self._clock.now()
            self._ensure_capacity(client, characters)
            turns = self._turns(job, characters, client, priority, None if timeout_s is None else now + timeout_s)
            self._queue.admit(turns, now)
            self._wake(self._main, self._next)
        if turns[0].short:
            self._clock.call_later(OVERDUE_S, partial(self._relieve, job))
        try:
            return await job.result
        finally:
            with self._lock:
                self._queue.cancel(turns)

    def _ensure_capacity(self, client: str, characters: int) -> None:
        if characters > self.max_characters:
            raise PayloadTooLarge(
                f"a request must have at most {self.max_characters} characters; got {characters}",
                field="text",
            )
        try:
            self._queue.ensure_capacity(client, 1, characters)
        except Overloaded as error:
            raise Overloaded(
                f"cannot queue {characters} characters: {self.characters} of {self.max_characters} are queued, and one "
                f"client may hold at most {SHARE} times the free capacity",
                retry_after_s=error.retry_after_s,
            ) from error

    def _turns(self, job: _Job[T], characters: int, client: str, priority: int, deadline: float | None) -> list[_Turn]:
        starts = range(0, characters, STEP_CHARACTERS)
        ends = [*starts[1:], characters]
        character_s = CHARACTER_S * self._correction.factor
        return [
            _Turn(
                job=job,
                after=start,
                until=math.inf if end == characters else end,
                length=end - start,
                work_s=(end - start) * character_s,
                client=client,
                priority=priority,
                deadline=deadline,
            )
            for start, end in zip(starts, ends, strict=True)
        ]

    def _relieve(self, job: _Job[Any]) -> None:
        """Starts the second thread for short requests such as `job`, if the first thread is overdue."""
        if job.result.done():
            return
        self._clock.call_later(OVERDUE_S, partial(self._relieve, job))
        with self._lock:
            began_s = self._main.began_s
            if began_s is not None and self._clock.now() - began_s >= OVERDUE_S:
                self._wake(self._relief, self._next_short)

    def _wake(self, thread: _Thread, choose: Callable[[], _Turn | None]) -> None:
        if not thread.awake:
            thread.awake = True
            thread.pool.submit(self._work, thread, choose)

    def _work(self, thread: _Thread, choose: Callable[[], _Turn | None]) -> None:
        """Runs turns on `thread` until there are none."""
        while (turn := self._take(thread, choose)) is not None:
            before = turn.job.characters
            turn.job.advance(turn.until)
            with self._lock:
                taken_s = self._clock.now() - (thread.began_s or 0.0)
                self._correction.observe((turn.job.characters - before) * CHARACTER_S, taken_s)

    def _take(self, thread: _Thread, choose: Callable[[], _Turn | None]) -> _Turn | None:
        with self._lock:
            turn = choose()
            if turn is None:
                thread.awake, thread.began_s = False, None
                return None
            self._queue.take([turn])
            thread.began_s = now = self._clock.now()
            if turn.after == 0:
                self._wait_s.observe(now - turn.admitted_at)
            return turn

    def _next(self) -> _Turn | None:
        return next(iter(self._queue.window(1)), None)

    def _next_short(self) -> _Turn | None:
        return next((turn for turn in self._queue.window(self._queue.sequences) if turn.short), None)


class _Thread:
    """State of one of the two threads; `began_s` is the start of its current turn."""

    def __init__(self, name: str) -> None:
        self.pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self.awake = False
        self.began_s: float | None = None
