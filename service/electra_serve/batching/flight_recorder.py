"""Flight recorder: metadata of the last batches, running ones included, without any content."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from electra_serve.batching.worker_pool import Lane
from electra_serve.tensors import BatchShape, Outputs, Placement


class BatchOutcome(StrEnum):
    """State of a batch."""

    RUNNING = "running"
    OK = "ok"
    NON_FINITE = "non_finite"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"
    ABORTED = "given_up"


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch, as shown in logs and the admin API. Times are seconds of the event loop's clock."""

    admitted_at: float  # of the row that waited longest
    chosen_at: float  # when it was planned
    started_at: float | None  # None if it has not started or failed
    ended_at: float | None
    sequences: int
    rows: int
    length: int  # positions of each row
    real_tokens: int  # unmasked positions
    outputs: tuple[str, ...]
    expected_s: float  # by the cost model
    seconds: float | None  # duration of the engine's run; None if it failed or has not ended
    outcome: BatchOutcome
    error: str  # type of what the engine raised, or empty
    non_finite_rows: int  # sequences whose output was not finite


@dataclass(slots=True, eq=False)
class InFlightBatch:
    """One batch from planning to completion; see `BatchRecord` for the fields that both have."""

    lane: Lane
    engine: int  # index among all engines of the model
    budget: int  # limit of positions when it, or the batch that it retries, was planned
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
        """Returns an immutable copy."""
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
    """Converts records to fields of a structured log."""
    return [asdict(record) for record in records]


class FlightRecorder:
    """Keeps the last `size` batches of one model."""

    def __init__(self, size: int) -> None:
        self._flights: deque[InFlightBatch] = deque(maxlen=size)

    def add(self, flight: InFlightBatch) -> None:
        """Adds a batch and drops the oldest one over the limit."""
        self._flights.append(flight)

    def records(self) -> tuple[BatchRecord, ...]:
        """Returns copies of the batches, oldest first."""
        return tuple(flight.record() for flight in self._flights)
