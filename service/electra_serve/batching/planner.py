"""Batch planner: groups queued sequences into rows and batches of the least total cost.

The cost of a plan is the sum of its batches' seconds, by a table of timings. Sequences are packed into rows by best-fit
decreasing (`packing_search`), then rows are cut into the cheapest batches by dynamic programming (`row_batches`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from electra_serve.batching.cost_model import CostTable
from electra_serve.batching.packing_search import PackingSearch
from electra_serve.batching.row_batches import RowBatches
from electra_serve.batching.row_packing import Packing
from electra_serve.tensors import SLOT_POSITIONS, BatchShape, Placement

_Rows = list[list[int]]  # sequences of each row


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Sequences to run together."""

    shape: BatchShape
    sequences: tuple[int, ...]  # indices in the planned list, ascending
    placements: tuple[Placement, ...]  # in the same order


class Planner:
    """Plans batches of queued sequences; the limits apply to batches of several."""

    def __init__(self, costs: CostTable, *, max_positions: int, target_batch_s: float = math.inf) -> None:
        self._costs = costs
        self._target_batch_s = target_batch_s
        self._single_rows = sorted((shape for shape in costs.shapes if shape.rows == 1), key=costs.seconds)
        self._max_length = max(shape.length for shape in self._single_rows)
        self.reduce_max_positions(max_positions)

    @property
    def costs(self) -> CostTable:
        """Seconds of each shape."""
        return self._costs

    @property
    def max_positions(self) -> int:
        """Limit of positions in a batch of several sequences."""
        return self._max_positions

    @property
    def batch_positions(self) -> int:
        """Positions of the largest shape that several sequences may share; 0 if there is none."""
        return max((shape.positions for shape in self._shared if shape.rows * shape.slots > 1), default=0)

    def reduce_max_positions(self, max_positions: int) -> None:
        """Lowers the limit of positions."""
        self._max_positions = max_positions
        self._shared = [shape for shape in self._costs.shapes if self._may_share(shape)]
        self._batches = RowBatches(self._costs, self._shared)
        self._search = PackingSearch(self._batches)

    def sequence_seconds(self, length: int) -> float:
        """Returns the seconds of engine time that one more sequence should add, at the best rate of its shapes."""
        self._check((length,))
        need = max(length, SLOT_POSITIONS)
        if need > self._batches.max_length:
            return self._costs.seconds(self._single_row(length))
        return need * self._batches.position_seconds[self._batches.kinds[need]]

    def plan(self, lengths: Sequence[int]) -> list[BatchPlan]:
        """Plans all sequences, given by their lengths, most urgent first; raises ValueError for a length out of range.

        Example:
            >>> shapes = {BatchShape(1, 16): 0.002, BatchShape(1, 64): 0.004, BatchShape(2, 64): 0.006}
            >>> planner = Planner(CostTable(shapes), max_positions=128)
            >>> [(batch.shape, batch.sequences) for batch in planner.plan([60, 20, 20, 20, 12])]
            [(BatchShape(rows=2, length=64), (0, 1, 2, 3)), (BatchShape(rows=1, length=16), (4,))]
        """
        batches = [_batch(lengths, shape, rows) for shape, rows in self._cheapest_batches(lengths)]
        return sorted(batches, key=lambda batch: batch.sequences)

    def plan_next(self, lengths: Sequence[int]) -> BatchPlan:
        """Returns the first batch of `plan`; raises ValueError without a length in range."""
        if not lengths:
            raise ValueError("lengths must have at least one item; got none")
        return next(
            _batch(lengths, shape, rows)
            for shape, rows in self._cheapest_batches(lengths)
            if any(0 in row for row in rows)
        )

    def seconds(self, plans: Sequence[BatchPlan]) -> float:
        """Returns the seconds of batches that run one after another."""
        return sum(self._costs.seconds(batch.shape) for batch in plans)

    def _may_share(self, shape: BatchShape) -> bool:
        return shape.positions <= self._max_positions and self._costs.seconds(shape) <= self._target_batch_s

    def _single_row(self, length: int) -> BatchShape:
        return next(shape for shape in self._single_rows if shape.length >= length)

    def _check(self, lengths: Sequence[int]) -> None:
        for length in (min(lengths, default=1), max(lengths, default=1)):
            if not 1 <= length <= self._max_length:
                raise ValueError(f"length must be 1 to {self._max_length}; got {length}")

    def _cheapest_batches(self, lengths: Sequence[int]) -> Iterator[tuple[BatchShape, _Rows]]:
        self._check(lengths)
        needs = [length if length > SLOT_POSITIONS else SLOT_POSITIONS for length in lengths]
        order = sorted(range(len(needs)), key=needs.__getitem__, reverse=True)
        alone = 0
        while alone < len(order) and needs[order[alone]] > self._batches.max_length:
            yield self._single_row(lengths[order[alone]]), [[order[alone]]]
            alone += 1
        if alone < len(order):
            yield from self._cut(self._search.cheapest(needs, order[alone:]))

    def _cut(self, packing: Packing) -> Iterator[tuple[BatchShape, _Rows]]:
        kinds = self._batches.kinds
        # Of rows of one kind, the most urgent run together.
        rows = sorted((kinds[used], -min(row), row) for row, used in zip(packing.rows, packing.used, strict=True))
        for batch, shape in self._batches.cut([kind for kind, _, _ in rows]):
            yield shape, [row for _, _, row in reversed(rows[batch])]


def _batch(lengths: Sequence[int], shape: BatchShape, rows: _Rows) -> BatchPlan:
    placements = {}
    for row, sequences in enumerate(rows):
        start = 0
        for slot, sequence in enumerate(sorted(sequences)):
            placements[sequence] = Placement(row, slot, start, lengths[sequence])
            start += max(lengths[sequence], SLOT_POSITIONS)
    ordered = sorted(placements)
    return BatchPlan(shape, tuple(ordered), tuple([placements[sequence] for sequence in ordered]))
