"""Rows that have left the queue and have no result yet: in a batch that runs, or in the retry queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from electra_serve.batching.flight_recorder import BatchOutcome, InFlightBatch
from electra_serve.batching.pending import PendingRows
from electra_serve.batching.planner import Planner
from electra_serve.errors import ServiceError
from electra_serve.tensors import BatchShape, Placement


def fail(rows: PendingRows, error: ServiceError) -> None:
    """Answers these with `error`, where nobody has an answer yet."""
    for row in rows:
        row.request.fail(error)


class InFlight:
    """Knows who is under way.

    Attributes:
        sequences: Rows that were taken and are not settled: in an engine, or in a half that waits for one.
        idle: Set while there are none.
    """

    def __init__(self) -> None:
        self._batches: dict[InFlightBatch, PendingRows] = {}
        self.sequences = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def take(self, rows: PendingRows) -> None:
        """These have left the queue."""
        self.sequences += len(rows)
        self.idle.clear()

    def begin(self, flight: InFlightBatch, rows: PendingRows) -> None:
        """These are with an engine now."""
        self._batches[flight] = rows

    def end(self, flight: InFlightBatch) -> PendingRows | None:
        """A batch is back: its rows, or None where they were given up meanwhile."""
        return self._batches.pop(flight, None)

    def forget(self, rows: PendingRows) -> None:
        """The batch of these, if there is one, has come to nothing."""
        for flight in [flight for flight, others in self._batches.items() if others is rows]:
            flight.outcome = BatchOutcome.FAILED
            del self._batches[flight]

    def settle(self, rows: PendingRows) -> None:
        """Each of these is answered."""
        self.sequences -= len(rows)
        if not self.sequences:
            self.idle.set()

    def fail(self, rows: PendingRows, error: ServiceError) -> None:
        """Each of these is answered with `error`, where nobody has an answer yet."""
        fail(rows, error)
        self.settle(rows)

    def empty(self) -> Sequence[tuple[InFlightBatch, PendingRows]]:
        """Every batch that is with an engine; none is from now on."""
        batches = list(self._batches.items())
        self._batches.clear()
        return batches


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """Sequences to run together.

    Attributes:
        rows: The sequences.
        shape: The shape to run them in.
        placements: Where each of them is.
        budget: Most positions that a batch might have when it, or the batch that it is a part of, was planned.
    """

    rows: PendingRows
    shape: BatchShape
    placements: Sequence[Placement]
    budget: int


class RetryQueue:
    """Keeps them in order.

    Args:
        in_flight: Who is under way: the rows of parts are, until they are answered.
        planner: Packs the parts.
    """

    def __init__(self, in_flight: InFlight, planner: Planner) -> None:
        self._in_flight = in_flight
        self._planner = planner
        self._retries: deque[PlannedBatch] = deque()

    def __len__(self) -> int:
        return len(self._retries)

    def split(self, rows: PendingRows, budget: int) -> None:
        """Adds both halves of a batch of several rows."""
        middle = len(rows) // 2
        for half in (rows[:middle], rows[middle:]):
            self._add(half, budget)

    def isolate(self, rows: PendingRows, budget: int) -> None:
        """Adds each of these sequences as a batch of its own."""
        for row in rows:
            self._add([row], budget)

    def _add(self, rows: PendingRows, budget: int) -> None:
        for plan in self._planner.plan([row.length for row in rows]):
            chosen = [rows[index] for index in plan.sequences]
            self._retries.append(PlannedBatch(chosen, plan.shape, plan.placements, budget))

    def next(self) -> PlannedBatch | None:
        """The first that somebody still wants something of, without the rows that nobody does; None: there is none."""
        while self._retries:
            part = self._retries.popleft()
            placed = list(zip(part.rows, part.placements, strict=True))
            wanted = [(row, place) for row, place in placed if not row.request.result.done()]
            self._in_flight.settle([row for row, _ in placed if row.request.result.done()])
            if wanted:
                rows, placements = zip(*wanted, strict=True)
                return PlannedBatch(rows, part.shape, placements, part.budget)
        return None

    def fail(self, error: ServiceError) -> None:
        """Answers all with `error`."""
        while (part := self.next()) is not None:
            self._in_flight.fail(part.rows, error)
