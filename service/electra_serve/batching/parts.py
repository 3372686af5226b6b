"""Parts of batches that failed, which are run before anything that waits."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from electra_serve.batching.in_flight import Entries, InFlight
from electra_serve.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a batch.

    Attributes:
        entries: Its rows.
        budget: Most positions that a batch might have when the whole one was cut.
    """

    entries: Entries
    budget: int


class Parts:
    """Keeps them in order.

    Args:
        in_flight: Who is under way: the rows of parts are, until they are answered.
    """

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._parts: deque[Part] = deque()

    def __len__(self) -> int:
        return len(self._parts)

    def split(self, entries: Entries, budget: int) -> None:
        """Adds both halves of a batch of several rows."""
        middle = len(entries) // 2
        self._parts.extend((Part(entries[:middle], budget), Part(entries[middle:], budget)))

    def next(self) -> Part | None:
        """The first that somebody still wants something of, without the rows that nobody does; None: there is none."""
        while self._parts:
            part = self._parts.popleft()
            wanted = [entry for entry in part.entries if not entry.item.job.answer.done()]
            self._in_flight.settle([entry for entry in part.entries if entry.item.job.answer.done()])
            if wanted:
                return Part(wanted, part.budget)
        return None

    def fail(self, error: ServiceError) -> None:
        """Answers all with `error`."""
        while (part := self.next()) is not None:
            self._in_flight.fail(part.entries, error)
