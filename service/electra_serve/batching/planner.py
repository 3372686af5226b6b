"""Plans batches: which waiting sequences share a batch, in which rows and shape.

A plan costs the sum of its batches' seconds. Those come from a table, one timing per shape, because no formula predicts
how well a device runs a shape. The cheapest plan is sought in two steps. First, sequences are packed into rows by
best-fit decreasing, once for each row length that promises a low cost: long sequences leave gaps, which short ones
fill, and one row at most is left half empty. Second, rows are cut into the cheapest batches exactly
(`electra_serve.batching.row_batches`), where a half-empty row gets a shorter shape.

No plan costs more than one sequence per row, or than first-fit in arrival order into rows of one length. Those are
packed as well if a lower bound of their cost does not rule them out.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Final

from electra_serve.batching.cost_model import CostTable
from electra_serve.batching.row_batches import CHEAPER, RowBatches
from electra_serve.batching.row_packing import Packing, best_fit_decreasing, first_fit, one_per_row
from electra_serve.tensors import SLOT_POSITIONS, BatchShape, Placement

_PACKED_SEQUENCES: Final = 384
"""Sequences to pack while the cheapest row length is sought: small windows try all, large ones two."""
_LEAST_PACKINGS: Final = 2

_Rows = list[list[int]]
"""The sequences of each row."""
_Candidate = tuple[float, Callable[[], Packing]]
"""A lower bound of its seconds, and the packing."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Sequences to run together.

    Attributes:
        shape: The shape to run them in.
        sequences: Their indices in the list that was planned, ascending.
        placements: Where each of them is, in the same order.
    """

    shape: BatchShape
    sequences: tuple[int, ...]
    placements: tuple[Placement, ...]


class Planner:
    """Partitions a window of waiting sequences into batches of the least summed cost.

    Args:
        costs: Seconds of each shape.
        max_positions: Most positions in a batch of several sequences, padding included.
        target_batch_s: Most seconds of a batch of several sequences.
    """

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
        """Most positions in a batch of several sequences."""
        return self._max_positions

    @property
    def batch_positions(self) -> int:
        """Positions of the largest shape that several sequences may share; 0 if none."""
        return max((shape.positions for shape in self._shared if shape.rows * shape.slots > 1), default=0)

    def reduce_max_positions(self, max_positions: int) -> None:
        """Allows fewer positions from now on."""
        self._max_positions = max_positions
        self._shared = [shape for shape in self._costs.shapes if self._may_share(shape)]
        self._batches = RowBatches(self._costs, self._shared)

    def sequence_seconds(self, length: int) -> float:
        """Seconds of engine time that one more sequence is expected to add.

        Its positions count at the best rate of the shapes that it may share, or it takes a batch of its own.
        """
        need = max(length, SLOT_POSITIONS)
        if need > self._batches.max_length:
            return self._costs.seconds(self._single_row(length))
        return need * self._batches.position_seconds[self._batches.kinds[need]]

    def plan(self, lengths: Sequence[int]) -> list[BatchPlan]:
        """Partitions sequences of these lengths.

        Args:
            lengths: Each sequence's positions, from 1 to those of the longest single row; most urgent first.

        Returns:
            Batches that hold each sequence exactly once; that of the most urgent first.

        Raises:
            ValueError: A length is out of range.

        Example:
            >>> shapes = {BatchShape(1, 16): 0.002, BatchShape(1, 64): 0.004, BatchShape(2, 64): 0.006}
            >>> planner = Planner(CostTable(shapes), max_positions=128)
            >>> [(batch.shape, batch.sequences) for batch in planner.plan([60, 20, 20, 20, 12])]
            [(BatchShape(rows=2, length=64), (0, 1, 2, 3)), (BatchShape(rows=1, length=16), (4,))]
        """
        batches = [_batch(lengths, shape, rows) for shape, rows in self._cheapest_batches(lengths)]
        return sorted(batches, key=lambda batch: batch.sequences)

    def plan_next(self, lengths: Sequence[int]) -> BatchPlan:
        """The first batch of `plan`, which holds the most urgent sequence.

        Args:
            lengths: As for `plan`; at least one.
        """
        return next(
            _batch(lengths, shape, rows)
            for shape, rows in self._cheapest_batches(lengths)
            if any(0 in row for row in rows)
        )

    def seconds(self, plans: Sequence[BatchPlan]) -> float:
        """Seconds of these batches, one after the other."""
        return sum(self._costs.seconds(batch.shape) for batch in plans)

    def _may_share(self, shape: BatchShape) -> bool:
        return shape.positions <= self._max_positions and self._costs.seconds(shape) <= self._target_batch_s

    def _single_row(self, length: int) -> BatchShape:
        """The cheapest shape for a sequence that shares with none."""
        return next(shape for shape in self._single_rows if shape.length >= length)

    def _check(self, lengths: Sequence[int]) -> None:
        for length in (min(lengths, default=1), max(lengths, default=1)):
            if not 1 <= length <= self._max_length:
                raise ValueError(f"length must be 1 to {self._max_length}; got {length}")

    def _cheapest_batches(self, lengths: Sequence[int]) -> Iterator[tuple[BatchShape, _Rows]]:
        """Shape and rows of each batch, most urgent rows first."""
        self._check(lengths)
        needs = [length if length > SLOT_POSITIONS else SLOT_POSITIONS for length in lengths]
        order = sorted(range(len(needs)), key=needs.__getitem__, reverse=True)
        alone = 0
        while alone < len(order) and needs[order[alone]] > self._batches.max_length:
            yield self._single_row(lengths[order[alone]]), [[order[alone]]]
            alone += 1
        if alone < len(order):
            yield from self._cut(self._cheapest_packing(needs, order[alone:]))

    def _cut(self, packing: Packing) -> Iterator[tuple[BatchShape, _Rows]]:
        """Cuts rows into batches; of rows of one kind, the most urgent go together."""
        kinds = self._batches.kinds
        rows = sorted((kinds[used], -min(row), row) for row, used in zip(packing.rows, packing.used, strict=True))
        for batch, shape in self._batches.cut([kind for kind, _, _ in rows]):
            yield shape, [row for _, _, row in reversed(rows[batch])]

    def _cheapest_packing(self, needs: list[int], order: list[int]) -> Packing:
        kinds = self._batches.kinds
        least_s = math.inf
        for bound_s, pack in self._candidates(needs, order):
            if bound_s < least_s * CHEAPER:
                packing = pack()
                seconds = self._batches.seconds(sorted([kinds[used] for used in packing.used]))
                if seconds < least_s:
                    least_s, cheapest = seconds, packing
        return cheapest

    def _candidates(self, needs: list[int], order: list[int]) -> Iterator[_Candidate]:
        """Packings with about the least seconds that each may take, most promising first."""
        lengths = self._batches.lengths
        ascending = [needs[sequence] for sequence in reversed(order)]
        estimates, single_s = self._estimates(ascending)
        most = max(_LEAST_PACKINGS, _PACKED_SEQUENCES // len(order))
        for estimate_s, length in sorted(estimates)[:most]:
            yield estimate_s, partial(best_fit_decreasing, needs, order, length, lengths)
        yield single_s, partial(one_per_row, needs, order)
        total = sum(ascending)
        arrivals = sorted(order)
        for kind in range(self._batches.kinds[ascending[-1]], len(lengths)):
            least_s = self._batches.equal_seconds(kind, -(-total // lengths[kind]))
            yield least_s, partial(first_fit, needs, arrivals, lengths[kind])

    def _estimates(self, ascending: list[int]) -> tuple[list[tuple[float, int]], float]:
        """Seconds of best-fit decreasing by row length, if nothing but a last row has gaps; and of one sequence per row.

        Sequences too long for that row length get rows of their own, whose gaps shorter ones fill.
        """
        batches = self._batches
        sums = list(accumulate(ascending, initial=0))
        estimates = []
        longer_s = 0.0
        gaps = 0
        end = len(ascending)
        for kind in range(len(batches.lengths) - 1, -1, -1):
            length = batches.lengths[kind]
            rest = max(0, sums[end] - gaps)
            full, last = divmod(rest, length)
            estimate_s = batches.equal_seconds(kind, full + (last > 0))
            if last and full:
                estimate_s = min(
                    estimate_s, batches.equal_seconds(kind, full) + batches.equal_seconds(batches.kinds[last], 1)
                )
            estimates.append((longer_s + estimate_s, length))
            start = bisect_right(ascending, batches.lengths[kind - 1], 0, end) if kind else 0
            longer_s += batches.equal_seconds(kind, end - start)
            gaps += (end - start) * length - (sums[end] - sums[start])
            end = start
            if not end:
                break
        return estimates, longer_s


def _batch(lengths: Sequence[int], shape: BatchShape, rows: _Rows) -> BatchPlan:
    placements = {}
    for row, sequences in enumerate(rows):
        start = 0
        for slot, sequence in enumerate(sorted(sequences)):
            placements[sequence] = Placement(row, slot, start, lengths[sequence])
            start += max(lengths[sequence], SLOT_POSITIONS)
    ordered = sorted(placements)
    return BatchPlan(shape, tuple(ordered), tuple([placements[sequence] for sequence in ordered]))
