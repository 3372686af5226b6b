"""Rows that left the queue and have no result yet: in a running batch, or in the retry queue."""

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
    """Fails the rows' requests with `error`, unless they have a result."""
    for row in rows:
        row.request.fail(error)


class InFlight:
    """Tracks rows from the queue to their results."""

    def __init__(self) -> None:
        self._batches: dict[InFlightBatch, PendingRows] = {}
        self.sequences = 0  # rows without a result, retries included
        self.idle = asyncio.Event()  # set while there are none
        self.idle.set()

    def take(self, rows: PendingRows) -> None:
        """Counts rows that left the queue."""
        self.sequences += len(rows)
        self.idle.clear()

    def begin(self, flight: InFlightBatch, rows: PendingRows) -> None:
        """Records the rows of a batch that an engine runs."""
        self._batches[flight] = rows

    def end(self, flight: InFlightBatch) -> PendingRows | None:
        """Removes a finished batch and returns its rows; None if it was aborted."""
        return self._batches.pop(flight, None)

    def forget(self, rows: PendingRows) -> None:
        """Removes the batch of these rows, if there is one, as failed."""
        for flight in [flight for flight, others in self._batches.items() if others is rows]:
            flight.outcome = BatchOutcome.FAILED
            del self._batches[flight]

    def settle(self, rows: PendingRows) -> None:
        """Discounts rows that have a result."""
        self.sequences -= len(rows)
        if not self.sequences:
            self.idle.set()

    def fail(self, rows: PendingRows, error: ServiceError) -> None:
        """Fails the rows' requests with `error`, and discounts the rows."""
        fail(rows, error)
        self.settle(rows)

    def empty(self) -> Sequence[tuple[InFlightBatch, PendingRows]]:
        """Removes and returns all running batches."""
        batches = list(self._batches.items())
        self._batches.clear()
        return batches


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """Rows to run together."""

    rows: PendingRows
    shape: BatchShape
    placements: Sequence[Placement]
    budget: int  # limit of positions when the rows were first planned


class RetryQueue:
    """Batches to run again, in order."""

    def __init__(self, in_flight: InFlight, planner: Planner) -> None:
        self._in_flight = in_flight
        self._planner = planner
        self._retries: deque[PlannedBatch] = deque()

    def __len__(self) -> int:
        return len(self._retries)

    def split(self, rows: PendingRows, budget: int) -> None:
        """Queues both halves of a batch of several rows."""
        middle = len(rows) // 2
        for half in (rows[:middle], rows[middle:]):
            self._add(half, budget)

    def isolate(self, rows: PendingRows, budget: int) -> None:
        """Queues each row as a batch of its own."""
        for row in rows:
            self._add([row], budget)

    def _add(self, rows: PendingRows, budget: int) -> None:
        for plan in self._planner.plan([row.length for row in rows]):
            chosen = [rows[index] for index in plan.sequences]
            self._retries.append(PlannedBatch(chosen, plan.shape, plan.placements, budget))

    def next(self) -> PlannedBatch | None:
        """Removes and returns the next batch, without rows whose requests have ended; None if there is none."""
        while self._retries:
            retry = self._retries.popleft()
            placed = list(zip(retry.rows, retry.placements, strict=True))
            pending = [(row, place) for row, place in placed if not row.request.result.done()]
            self._in_flight.settle([row for row, _ in placed if row.request.result.done()])
            if pending:
                rows, placements = zip(*pending, strict=True)
                return PlannedBatch(rows, retry.shape, placements, retry.budget)
        return None

    def fail(self, error: ServiceError) -> None:
        """Fails all queued batches with `error`."""
        while (retry := self.next()) is not None:
            self._in_flight.fail(retry.rows, error)
