"""The flight recorder: what became of the last batches, without a word of what was in them.

An `InFlightBatch` is written to while its batch runs; a `BatchRecord` is its immutable copy for logs and the admin
API. The recorder keeps the last batches, running ones included: after a fault they show what happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from electra_serve.batching.worker_pool import Lane
from electra_serve.tensors import BatchShape, Outputs, Placement


class BatchOutcome(StrEnum):
    """What became of a batch."""

    RUNNING = "running"
    OK = "ok"
    NON_FINITE = "non_finite"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"
    ABORTED = "given_up"


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch, as it may be told.

    Times are seconds of the event loop's clock, which begins anywhere and never goes back.

    Attributes:
        admitted_at: When the row that waited longest was admitted.
        chosen_at: When the batch was cut from what waited.
        started_at: When the engine began; None: not yet, or it raised.
        ended_at: When the batch was back; None: not yet.
        sequences: How many it holds.
        rows: R.
        length: P, the positions of each row.
        real_tokens: Unmasked positions.
        outputs: What was asked of the engine, by name.
        expected_s: Seconds that it should take, by the cost model.
        seconds: Seconds that the engine took; None where it raised or has not ended.
        outcome: What became of it.
        error: The type of what the engine raised; "" where it did not.
        non_finite_rows: Sequences whose output was not finite. Those that shared a row are run again alone.
    """

    admitted_at: float
    chosen_at: float
    started_at: float | None
    ended_at: float | None
    sequences: int
    rows: int
    length: int
    real_tokens: int
    outputs: tuple[str, ...]
    expected_s: float
    seconds: float | None
    outcome: BatchOutcome
    error: str
    non_finite_rows: int


@dataclass(slots=True, eq=False)
class InFlightBatch:
    """One batch on its way; attributes as of `BatchRecord`.

    Attributes:
        lane: The engines that it was planned for.
        engine: Which engine has it, among all.
        budget: Most positions that a batch might have when it, or the batch that it is a part of, was planned.
        placements: Where each of its sequences is.
    """

    lane: Lane
    engine: int
    budget: int
    shape: BatchShape
    placements: Sequence[Placement]
    admitted_at: float
    chosen_at: float
    real_tokens: int
    outputs: Outputs
    expected_s: float
    started_at: float | None = None
    ended_at: float | None = None
    seconds: float | None = None
    outcome: BatchOutcome = BatchOutcome.RUNNING
    error: str = ""
    non_finite_rows: int = 0

    def record(self) -> BatchRecord:
        """What may be told of it now."""
        return BatchRecord(
            admitted_at=self.admitted_at,
            chosen_at=self.chosen_at,
            started_at=self.started_at,
            ended_at=self.ended_at,
            sequences=len(self.placements),
            rows=self.shape.rows,
            length=self.shape.length,
            real_tokens=self.real_tokens,
            outputs=tuple(sorted(output.value for output in self.outputs)),
            expected_s=self.expected_s,
            seconds=self.seconds,
            outcome=self.outcome,
            error=self.error,
            non_finite_rows=self.non_finite_rows,
        )


def for_log(records: Iterable[BatchRecord]) -> list[dict[str, object]]:
    """Records as a structured log takes them."""
    return [asdict(record) for record in records]


class FlightRecorder:
    """The last batches of one model.

    Args:
        size: How many are kept.
    """

    def __init__(self, size: int) -> None:
        self._flights: deque[InFlightBatch] = deque(maxlen=size)

    def add(self, flight: InFlightBatch) -> None:
        """Keeps one more; the oldest goes when there are too many."""
        self._flights.append(flight)

    def records(self) -> tuple[BatchRecord, ...]:
        """What is kept, oldest first."""
        return tuple(flight.record() for flight in self._flights)
