"""Which engine runs the next batch.

Under load each core runs batches of its own: two batches beside one another take less time than two that share both
cores one after the other, since threads wait for each other at every layer. While nothing runs, fewer sequences than
engines, if one batch holds them, are better off with all cores. So the switch depends only on what runs and what waits.

Nothing here waits or reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from electra_serve.batching.cost_model import DriftCorrection
from electra_serve.batching.engine_worker import EngineWorker
from electra_serve.batching.planner import Planner
from electra_serve.tensors import BatchShape


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """Engines that are alike.

    Attributes:
        workers: One per engine, at least one.
        planner: Plans their batches.
        correction: Of the planner's costs, by what their batches took lately.
    """

    workers: tuple[EngineWorker, ...]
    planner: Planner
    correction: DriftCorrection = field(default_factory=DriftCorrection)

    def expected_s(self, shape: BatchShape) -> float:
        """Seconds that a batch of `shape` should take now."""
        return self.planner.costs.seconds(shape) * self.correction.factor

    def sequence_s(self, length: int) -> float:
        """Seconds of an engine's time that one more sequence of `length` should add now."""
        return self.planner.sequence_seconds(length) * self.correction.factor


class NextBatch(NamedTuple):
    """Where the next batch runs.

    Attributes:
        lane: Its engines.
        worker: One of them, which is free.
        share: Its part of the waiting sequences.
    """

    lane: Lane
    worker: EngineWorker
    share: float


class WorkerPool:
    """The engines of one model.

    Args:
        shared: They share the queue.
        lone: One engine with all cores; None: `shared` has them.
    """

    def __init__(self, shared: Lane, lone: Lane | None = None) -> None:
        self.shared = shared
        self.lone = lone
        self.workers = (*shared.workers, *(lone.workers if lone else ()))

    @property
    def remaining_s(self) -> float:
        """Seconds until an engine under load should be free."""
        return min(worker.remaining_s for worker in self.shared.workers)

    def next(self, sequences: int, positions: int) -> NextBatch | None:
        """The engine for the next batch; None: all are busy.

        Args:
            sequences: How many wait, or are to be run again.
            positions: Of all of them.
        """
        if self.lone and self._is_lone(self.lone, sequences, positions):
            return NextBatch(self.lone, self.lone.workers[0], share=1.0)
        free = [worker for worker in self.shared.workers if worker.free]
        if not free:
            return None
        return NextBatch(self.shared, min(free, key=lambda worker: worker.in_flight), share=1 / len(free))

    def _is_lone(self, lone: Lane, sequences: int, positions: int) -> bool:
        """Whether nothing runs, and the sequences are few and fit one batch."""
        if sequences >= len(self.shared.workers) or any(worker.in_flight for worker in self.workers):
            return False
        return sequences == 1 or positions <= lone.planner.batch_positions
