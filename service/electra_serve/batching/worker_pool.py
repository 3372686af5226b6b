"""Chooses the engine that runs the next batch.

Under load each core runs its own batches, since two cores that share a batch wait for each other at every layer. While
nothing runs, one batch of fewer sequences than engines gets all cores.
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
    """Identical engines, their planner, and the drift of their batch times."""

    workers: tuple[EngineWorker, ...]
    planner: Planner
    correction: DriftCorrection = field(default_factory=DriftCorrection)

    def expected_s(self, shape: BatchShape) -> float:
        """Returns the expected seconds of a batch."""
        return self.planner.costs.seconds(shape) * self.correction.factor

    def sequence_s(self, length: int) -> float:
        """Returns the engine time that one more sequence is expected to add."""
        return self.planner.sequence_seconds(length) * self.correction.factor


class EngineSlot(NamedTuple):
    """Place for one more batch: a worker, its lane, and its share of the queued sequences."""

    lane: Lane
    worker: EngineWorker
    share: float  # of the queue: one of as many as there are free engines


class WorkerPool:
    """The engines of one model: `shared` serve the queue, `lone` has all cores for single batches."""

    def __init__(self, shared: Lane, lone: Lane | None = None) -> None:
        self.shared = shared
        self.lone = lone
        self.workers = (*shared.workers, *(lone.workers if lone else ()))

    @property
    def remaining_s(self) -> float:
        """Estimated seconds until one of the shared engines is free."""
        return min(worker.remaining_s for worker in self.shared.workers)

    def free_slot(self, sequences: int, positions: int) -> EngineSlot | None:
        """Returns the slot for a batch of so many queued sequences and positions, or None if all are busy."""
        if self.lone and self._is_lone(self.lone, sequences, positions):
            return EngineSlot(self.lone, self.lone.workers[0], share=1.0)
        free = [worker for worker in self.shared.workers if worker.free]
        if not free:
            return None
        return EngineSlot(self.shared, min(free, key=lambda worker: worker.in_flight), share=1 / len(free))

    def _is_lone(self, lone: Lane, sequences: int, positions: int) -> bool:
        if sequences >= len(self.shared.workers) or any(worker.in_flight for worker in self.workers):
            return False
        return sequences == 1 or positions <= lone.planner.batch_positions
