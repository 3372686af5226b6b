"""Queue of pending rows: by priority, then fair between clients, then by arrival.

Fairness is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): the client with the least virtual time goes
first. A request is admitted or rejected whole, and at once if its estimated start is after its deadline.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Generic, TypeVar

from electra_serve.batching.admission import Admission, QueueLimits

_LAST: Final = float("inf")  # after all arrivals


@dataclass(slots=True, eq=False, kw_only=True)
class QueueEntry:
    """The queue's view of one pending sequence. It leaves exactly once: taken, cancelled or expired."""

    length: int  # positions to compute
    work_s: float  # engine time that it is expected to add
    client: str
    priority: int  # lower goes first
    deadline: float | None  # in seconds of the batcher's clock
    admitted_at: float = 0.0
    turn: tuple[int, float, int] = (0, 0.0, 0)  # sort key: priority, fair-queueing tag, arrival number
    waiting: bool = False  # in the queue

    def __lt__(self, other: QueueEntry) -> bool:
        return self.turn < other.turn


T = TypeVar("T", bound=QueueEntry)


class RequestQueue(Generic[T]):
    """Queued sequences of one model."""

    def __init__(self, limits: QueueLimits, *, engines: int = 1) -> None:
        self._admission = Admission(limits, engines=engines)
        self._engines = engines
        self._waiting: list[T] = []  # ascending by turn
        self._arrivals = 0
        self._virtual_now: dict[int, float] = {}  # by priority: tag of the last taken entry
        self._client_tags: dict[tuple[int, str], float] = {}  # start of each client's next entry
        self._waiting_at: Counter[int] = Counter()  # number of entries by priority
        self._work_ahead: list[float] | None = None  # cumulative `work_s` in queue order; None if outdated

    @property
    def sequences(self) -> int:
        """Number of queued sequences."""
        return len(self._waiting)

    @property
    def tokens(self) -> int:
        """Number of queued tokens."""
        return self._admission.total.tokens

    @property
    def work_s(self) -> float:
        """Estimated engine time of all queued sequences."""
        return self._admission.total.work_s

    def admit(self, entries: Sequence[T], now: float, *, busy_s: float = 0.0) -> None:
        """Admits all entries of one request, or none. An engine is free in `busy_s` seconds.

        Raises:
            PayloadTooLarge: They exceed the limits of an empty queue.
            Overloaded: They do not fit now, or the last would start after the deadline.
        """
        first, tokens = entries[0], sum(entry.length for entry in entries)
        self.ensure_capacity(first.client, len(entries), tokens)
        if first.deadline is not None:
            self._check_wait(first, tokens - entries[-1].length, first.deadline - now, busy_s)
        for entry in entries:
            self._insert(entry, now)

    def ensure_capacity(self, client: str, sequences: int, tokens: int) -> None:
        """Raises as `admit` does if the entries exceed the capacity, without admitting them."""
        self._admission.ensure_capacity(client, sequences, tokens)

    @contextmanager
    def reserve(self, client: str, sequences: int) -> Iterator[None]:
        """Counts `sequences` that are not queued yet, for admission only."""
        self._admission.reserve(client, sequences)
        try:
            yield
        finally:
            self._admission.reserve(client, -sequences)

    def window(self, limit: int) -> Sequence[T]:
        """Returns the first `limit` entries, without removing them."""
        return self._waiting[:limit]

    def take(self, entries: Sequence[T]) -> None:
        """Removes `entries` to run them; the first is the most urgent."""
        first = entries[0]  # not the largest tag: entries that only fill the batch must not delay new arrivals
        self._virtual_now[first.priority] = max(self._virtual_now.get(first.priority, 0.0), first.turn[1])
        self._remove(entries)

    def cancel(self, entries: Iterable[T]) -> None:
        """Removes those of `entries` that are still queued."""
        self._remove([entry for entry in entries if entry.waiting])

    def expire(self, now: float) -> list[T]:
        """Removes and returns entries whose deadline has passed."""
        expired = [entry for entry in self._waiting if entry.deadline is not None and entry.deadline <= now]
        self._remove(expired)
        return expired

    def oldest_wait_s(self, now: float) -> float:
        """Returns the longest queue wait so far; 0 for an empty queue."""
        return max((now - entry.admitted_at for entry in self._waiting), default=0.0)

    def _check_wait(self, first: T, tokens_before: int, time_left_s: float, busy_s: float) -> None:
        if busy_s + self.work_s / self._engines <= time_left_s:
            return  # the common case: even the last position starts in time
        turn = (first.priority, self._start(first) + tokens_before, _LAST)
        place = bisect_right(self._waiting, turn, key=lambda entry: entry.turn)
        wait_s = busy_s + self._work_until(place) / self._engines
        if wait_s > time_left_s:
            raise self._admission.overloaded(
                f"cannot meet the deadline: the estimated queue wait is {wait_s:.3g} s, "
                f"the deadline is in {time_left_s:.3g} s",
                wait_s - time_left_s,
            )

    def _work_until(self, place: int) -> float:
        if self._work_ahead is None:  # repeated rejections share one sum
            self._work_ahead = list(accumulate((entry.work_s for entry in self._waiting), initial=0.0))
        return self._work_ahead[place]

    def _start(self, entry: T) -> float:
        tag = self._client_tags.get((entry.priority, entry.client), 0.0)
        return max(tag, self._virtual_now.get(entry.priority, 0.0))

    def _insert(self, entry: T, now: float) -> None:
        start = self._start(entry)
        self._client_tags[entry.priority, entry.client] = start + entry.length
        self._forget_idle_clients()
        self._arrivals += 1
        entry.turn = (entry.priority, start, self._arrivals)
        entry.admitted_at = now
        entry.waiting = True
        self._waiting_at[entry.priority] += 1
        insort(self._waiting, entry)
        self._work_ahead = None
        self._admission.add(entry.client, entry.length, entry.work_s)

    def _remove(self, entries: Sequence[T]) -> None:
        if not entries:
            return
        for entry in entries:
            entry.waiting = False
            self._admission.remove(entry.client, entry.length, entry.work_s)
            self._waiting_at[entry.priority] -= 1
        self._waiting = [entry for entry in self._waiting if entry.waiting]
        self._work_ahead = None
        for priority in {entry.priority for entry in entries}:
            if not self._waiting_at[priority]:
                self._forget_priority(priority)

    def _forget_priority(self, priority: int) -> None:
        self._virtual_now.pop(priority, None)
        self._client_tags = {lane: tag for lane, tag in self._client_tags.items() if lane[0] != priority}

    def _forget_idle_clients(self) -> None:  # else tags grow with every client while the queue never empties
        if len(self._client_tags) > 2 * len(self._waiting) + 64:
            self._client_tags = {
                lane: tag for lane, tag in self._client_tags.items() if tag > self._virtual_now.get(lane[0], 0.0)
            }
