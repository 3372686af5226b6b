"""Who waits, in which order, and who is refused.

Invariants:
    A request is admitted whole or refused whole.
    An entry leaves exactly once: taken, cancelled or expired.
    `sequences`, `tokens` and `work_s` are the sums over what is waiting, at all times.

Order: first by priority; then fairly between clients; then by arrival. Fair is start-time fair queueing
(Goyal, Vin and Cheng, SIGCOMM 1996): each client has a virtual clock that its own positions move forward, and
who is least advanced goes first. A client that sends 100 times the others' load waits behind itself, not
they behind it. Within one client and priority, arrival order is kept.

Time comes in as `now`, in seconds of whatever clock the caller has. Nothing here waits.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.errors import Overloaded, PayloadTooLarge

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """How much may wait.

    Attributes:
        max_sequences: Most sequences.
        max_tokens: Most positions.
    """

    max_sequences: int
    max_tokens: int


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """One waiting sequence.

    Attributes:
        item: What the caller wants back when its turn comes.
        length: Positions to compute.
        work_s: Seconds of engine time it is expected to add.
        client: Whose it is.
        priority: Lower goes first.
        deadline: When it is no longer wanted, on the caller's clock; None: never.
        admitted_at: When it was admitted; the queue's to set, like the two below.
        turn: Where it stands among the waiting: priority, fair-queueing tag, arrival number.
        waiting: Whether it is in the queue.
    """

    item: T
    length: int
    work_s: float
    client: str
    priority: int
    deadline: float | None
    admitted_at: float = 0.0
    turn: tuple[int, float, int] = (0, 0.0, 0)
    waiting: bool = False

    def __lt__(self, other: Entry[T]) -> bool:
        return self.turn < other.turn


class RequestQueue(Generic[T]):
    """The waiting sequences of one model.

    Args:
        bounds: How much may wait.
        engines: How many engines share the work.
    """

    def __init__(self, bounds: QueueBounds, *, engines: int = 1) -> None:
        self._bounds = bounds
        self._engines = engines
        self._waiting: list[Entry[T]] = []  # ascending by turn
        self._arrivals = 0
        self._virtual_now: dict[int, float] = {}  # by priority: the tag of what was last taken
        self._client_tags: dict[tuple[int, str], float] = {}  # where each client's next entry starts
        self._waiting_at: Counter[int] = Counter()  # how many wait, by priority
        self.tokens = 0
        self.work_s = 0.0

    @property
    def sequences(self) -> int:
        """How many sequences wait."""
        return len(self._waiting)

    def admit(self, entries: Sequence[Entry[T]], now: float) -> None:
        """Admits all of `entries`, or none.

        Raises:
            PayloadTooLarge: They would not fit into an empty queue.
            Overloaded: They do not fit now. `retry_after_s` is when the queue should have drained, by the
                work it holds.
        """
        self.check_room(len(entries), sum(entry.length for entry in entries))
        for entry in entries:
            self._insert(entry, now)

    def check_room(self, sequences: int, tokens: int) -> None:
        """Refuses what `admit` would refuse, admitting nothing; raises the same."""
        bounds = self._bounds
        if sequences > bounds.max_sequences or tokens > bounds.max_tokens:
            raise PayloadTooLarge(
                f"a request takes at most {bounds.max_sequences} sequences and {bounds.max_tokens} "
                f"positions; received {sequences} and {tokens}"
            )
        if self.sequences + sequences > bounds.max_sequences or self.tokens + tokens > bounds.max_tokens:
            raise Overloaded(
                f"the queue takes {bounds.max_sequences} sequences and {bounds.max_tokens} positions; "
                f"{self.sequences} and {self.tokens} are waiting, the request has {sequences} and {tokens}",
                retry_after_s=self.work_s / self._engines,
            )

    def window(self, limit: int) -> Sequence[Entry[T]]:
        """The first `limit` entries in order of turn, which stay in the queue."""
        return self._waiting[:limit]

    def take(self, entries: Sequence[Entry[T]]) -> None:
        """Removes `entries`, whose turn has come; the first is the most urgent.

        The virtual time moves to the first entry's tag, not to the largest one taken: rows that ride along
        because their length fits must not push newcomers back.
        """
        first = entries[0]
        self._virtual_now[first.priority] = max(self._virtual_now.get(first.priority, 0.0), first.turn[1])
        self._remove(entries)

    def cancel(self, entries: Iterable[Entry[T]]) -> None:
        """Removes those of `entries` that still wait; the others are left alone."""
        self._remove([entry for entry in entries if entry.waiting])

    def expire(self, now: float) -> list[Entry[T]]:
        """Removes and returns what nobody wants any more at `now`."""
        expired = [entry for entry in self._waiting if entry.deadline is not None and entry.deadline <= now]
        self._remove(expired)
        return expired

    def oldest_wait_s(self, now: float) -> float:
        """How long the longest-waiting entry has waited; 0 for an empty queue."""
        return max((now - entry.admitted_at for entry in self._waiting), default=0.0)

    def _insert(self, entry: Entry[T], now: float) -> None:
        lane = (entry.priority, entry.client)
        start = max(self._client_tags.get(lane, 0.0), self._virtual_now.get(entry.priority, 0.0))
        self._client_tags[lane] = start + entry.length
        self._forget_idle_clients()
        self._arrivals += 1
        entry.turn = (entry.priority, start, self._arrivals)
        entry.admitted_at = now
        entry.waiting = True
        self._waiting_at[entry.priority] += 1
        insort(self._waiting, entry)
        self.tokens += entry.length
        self.work_s += entry.work_s

    def _remove(self, entries: Sequence[Entry[T]]) -> None:
        if not entries:
            return
        for entry in entries:
            entry.waiting = False
            self.tokens -= entry.length
            self.work_s -= entry.work_s
            self._waiting_at[entry.priority] -= 1
        self._waiting = [entry for entry in self._waiting if entry.waiting]
        if not self._waiting:
            self.work_s = 0.0  # whatever rounding has left
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
