"""The rows that have left the queue and have no answer yet, and the batches that they are in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

from electra_serve.batching.flight_recorder import BatchOutcome, Flight
from electra_serve.batching.pending import Row
from electra_serve.batching.queue import Entry
from electra_serve.errors import ServiceError

Entries: TypeAlias = Sequence[Entry[Row]]


def fail(entries: Entries, error: ServiceError) -> None:
    """Answers these with `error`, where nobody has an answer yet."""
    for entry in entries:
        entry.item.job.fail(error)


class InFlight:
    """Knows who is under way.

    Attributes:
        sequences: Rows that were taken and are not settled: in an engine, or in a half that waits for one.
        idle: Set while there are none.
    """

    def __init__(self) -> None:
        self._batches: dict[Flight, Entries] = {}
        self.sequences = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def take(self, entries: Entries) -> None:
        """These have left the queue."""
        self.sequences += len(entries)
        self.idle.clear()

    def begin(self, flight: Flight, entries: Entries) -> None:
        """These are with an engine now."""
        self._batches[flight] = entries

    def end(self, flight: Flight) -> Entries | None:
        """A batch is back: its rows, or None where they were given up meanwhile."""
        return self._batches.pop(flight, None)

    def forget(self, entries: Entries) -> None:
        """The batch of these, if there is one, has come to nothing."""
        for flight in [flight for flight, others in self._batches.items() if others is entries]:
            flight.outcome = BatchOutcome.FAILED
            del self._batches[flight]

    def settle(self, entries: Entries) -> None:
        """Each of these is answered."""
        self.sequences -= len(entries)
        if not self.sequences:
            self.idle.set()

    def fail(self, entries: Entries, error: ServiceError) -> None:
        """Each of these is answered with `error`, where nobody has an answer yet."""
        fail(entries, error)
        self.settle(entries)

    def empty(self) -> Sequence[tuple[Flight, Entries]]:
        """Every batch that is with an engine; none is from now on."""
        batches = list(self._batches.items())
        self._batches.clear()
        return batches
