"""Who waits, in which order, and who is refused.

Invariants:
    A request is admitted whole or refused whole.
    An entry leaves exactly once: taken, cancelled or expired.
    `sequences`, `tokens` and `work_s` are the sums over what is waiting, at all times.

Order: first by priority; then fairly between clients; then by arrival. Fair is start-time fair queueing
(Goyal, Vin and Cheng, SIGCOMM 1996): each client has a virtual clock that its own positions move forward, and
who is least advanced goes first. A client that sends 100 times the others' load waits behind itself, not
they behind it. Within one client and priority, arrival order is kept. How much may wait, and of whom, is `Admission`'s.

A request whose turn would come only after its deadline is refused at once. Its turn is when what is ahead of it should
be done, by the cost model: work that comes later may go first, so it can be later, too.

Time comes in as `now`, in seconds of whatever clock the caller has. Nothing here waits.
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

_LAST: Final = float("inf")
"""An arrival after all others."""


@dataclass(slots=True, eq=False, kw_only=True)
class QueueEntry:
    """The queue's view of one waiting sequence.

    Attributes:
        length: Positions to compute.
        work_s: Seconds of engine time it is expected to add.
        client: The client it counts for.
        priority: Lower goes first.
        deadline: Seconds of the caller's clock after which its result is useless; None: never.
        admitted_at: When it was admitted; set by the queue, like the two below.
        turn: Its place in the order: priority, fair-queueing tag, arrival number.
        waiting: It is in the queue.
    """

    length: int
    work_s: float
    client: str
    priority: int
    deadline: float | None
    admitted_at: float = 0.0
    turn: tuple[int, float, int] = (0, 0.0, 0)
    waiting: bool = False

    def __lt__(self, other: QueueEntry) -> bool:
        return self.turn < other.turn


T = TypeVar("T", bound=QueueEntry)


class RequestQueue(Generic[T]):
    """The waiting sequences of one model.

    Args:
        limits: How much may wait.
        engines: How many engines share the work.
    """

    def __init__(self, limits: QueueLimits, *, engines: int = 1) -> None:
        self._admission = Admission(limits, engines=engines)
        self._engines = engines
        self._waiting: list[T] = []  # ascending by turn
        self._arrivals = 0
        self._virtual_now: dict[int, float] = {}  # by priority: the tag of what was last taken
        self._client_tags: dict[tuple[int, str], float] = {}  # where each client's next entry starts
        self._waiting_at: Counter[int] = Counter()  # how many wait, by priority
        self._work_ahead: list[float] | None = None  # of each place in the order; None: to be summed anew

    @property
    def sequences(self) -> int:
        """How many sequences wait."""
        return len(self._waiting)

    @property
    def tokens(self) -> int:
        """How many positions wait."""
        return self._admission.total.tokens

    @property
    def work_s(self) -> float:
        """How many seconds of engine time wait."""
        return self._admission.total.work_s

    def admit(self, entries: Sequence[T], now: float, *, busy_s: float = 0.0) -> None:
        """Admits all of `entries`, or none.

        Args:
            entries: One request's: of one client, at one priority, with one deadline; at least one.
            now: The time.
            busy_s: Seconds until an engine is free.

        Raises:
            PayloadTooLarge: They would not fit into an empty queue.
            Overloaded: They do not fit now, or the turn of the last would come after their deadline. `retry_after_s`
                says when there should be room, or how much sooner the turn would have to come.
        """
        first, tokens = entries[0], sum(entry.length for entry in entries)
        self.ensure_capacity(first.client, len(entries), tokens)
        if first.deadline is not None:
            self._check_wait(first, tokens - entries[-1].length, first.deadline - now, busy_s)
        for entry in entries:
            self._insert(entry, now)

    def ensure_capacity(self, client: str, sequences: int, tokens: int) -> None:
        """Refuses what `admit` would refuse for want of room, admitting nothing; raises the same."""
        self._admission.check(client, sequences, tokens)

    @contextmanager
    def reserve(self, client: str, sequences: int) -> Iterator[None]:
        """Counts `sequences` that are not there yet as waiting, for admission alone."""
        self._admission.reserve(client, sequences)
        try:
            yield
        finally:
            self._admission.reserve(client, -sequences)

    def window(self, limit: int) -> Sequence[T]:
        """The first `limit` entries in order of turn, which stay in the queue."""
        return self._waiting[:limit]

    def take(self, entries: Sequence[T]) -> None:
        """Removes `entries`, whose turn has come; the first is the most urgent.

        The virtual time moves to the first entry's tag, not to the largest one taken: rows that ride along
        because their length fits must not push newcomers back.
        """
        first = entries[0]
        self._virtual_now[first.priority] = max(self._virtual_now.get(first.priority, 0.0), first.turn[1])
        self._remove(entries)

    def cancel(self, entries: Iterable[T]) -> None:
        """Removes those of `entries` that still wait; the others are left alone."""
        self._remove([entry for entry in entries if entry.waiting])

    def expire(self, now: float) -> list[T]:
        """Removes and returns what nobody wants any more at `now`."""
        expired = [entry for entry in self._waiting if entry.deadline is not None and entry.deadline <= now]
        self._remove(expired)
        return expired

    def oldest_wait_s(self, now: float) -> float:
        """How long the longest-waiting entry has waited; 0 for an empty queue."""
        return max((now - entry.admitted_at for entry in self._waiting), default=0.0)

    def _check_wait(self, first: T, tokens_before: int, patience_s: float, busy_s: float) -> None:
        """Refuses a request whose last sequence, after `tokens_before` of its own, has its turn too late.

        With less to do in all than there is time for, as is usual, its place in the order need not be found.
        """
        if busy_s + self.work_s / self._engines <= patience_s:
            return
        turn = (first.priority, self._start(first) + tokens_before, _LAST)
        place = bisect_right(self._waiting, turn, key=lambda entry: entry.turn)
        wait_s = busy_s + self._work_until(place) / self._engines
        if wait_s > patience_s:
            raise self._admission.overloaded(
                f"the turn of a request must come before its deadline; it would in {wait_s:.3g} s, "
                f"the deadline is in {patience_s:.3g} s",
                wait_s - patience_s,
            )

    def _work_until(self, place: int) -> float:
        """Seconds of engine time that the first `place` entries take. Refusals in a row sum it once."""
        if self._work_ahead is None:
            self._work_ahead = list(accumulate((entry.work_s for entry in self._waiting), initial=0.0))
        return self._work_ahead[place]

    def _start(self, entry: T) -> float:
        """Where the next entry of the same client and priority starts."""
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
        """With nobody waiting at a priority there is nothing to be fair about: its tags start over."""
        self._virtual_now.pop(priority, None)
        self._client_tags = {lane: tag for lane, tag in self._client_tags.items() if lane[0] != priority}

    def _forget_idle_clients(self) -> None:
        """Keeps the tags from growing with every client ever seen while the queue never empties."""
        if len(self._client_tags) > 2 * len(self._waiting) + 64:
            self._client_tags = {
                lane: tag for lane, tag in self._client_tags.items() if tag > self._virtual_now.get(lane[0], 0.0)
            }
