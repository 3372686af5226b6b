"""Which waiting sequences share a batch.

Padding a batch to its longest row wastes the difference; running rows one by one wastes the fixed cost of a
batch. Sorted by length, the rows of a good batch are neighbours, so the best partition is a way of cutting
one sorted list, and dynamic programming finds it: with lengths l₁ ≤ … ≤ lₙ,

    best(j) = min over i < j of  best(i) + t(j − i, lⱼ)

where t is the engine's cost of a batch of j − i rows padded to lⱼ. Cutting everywhere (one by one) and
nowhere (one batch) are among the candidates, so the plan never costs more than either.

Nothing here waits, reads a clock or knows what a request is: lengths in, row numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.batching.cost import CostModel
from service.engine.base import ShapeGrid
from service.tensors import BatchShape


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows to run together.

    Attributes:
        rows: Their indices in the list that was planned, shortest row first.
        shape: The padded shape to run them in.
    """

    rows: tuple[int, ...]
    shape: BatchShape


class Planner:
    """Cuts a window of waiting sequences into micro-batches of the least summed cost.

    Args:
        cost: What a batch costs.
        grid: The shapes that the engine takes.
        max_tokens: Most positions in a micro-batch, padding included. A row longer than that runs alone.
    """

    def __init__(self, cost: CostModel, grid: ShapeGrid, *, max_tokens: int) -> None:
        self._cost = cost
        self._max_tokens = max_tokens
        self._grid = grid
        # Padded row counts for 1 … max_rows rows, so that planning is array arithmetic.
        self._padded_rows = np.array([grid.fit(rows, 1).rows for rows in range(1, grid.max_rows + 1)])

    @property
    def cost(self) -> CostModel:
        """What a batch is taken to cost."""
        return self._cost

    def plan(self, lengths: Sequence[int]) -> list[MicroBatch]:
        """Partitions the rows of these lengths.

        Args:
            lengths: Each row's compute length, 1 ≤ length ≤ the grid's longest.

        Returns:
            Micro-batches that hold each row exactly once, shortest first.

        Raises:
            ValueError: A length is outside the grid.

        Example:
            >>> planner = Planner(CostModel(5.0, 1.0, 0.0), ShapeGrid(max_rows=8, max_length=512), max_tokens=512)
            >>> [batch.rows for batch in planner.plan([3, 100, 3, 98])]
            [(0, 2), (3, 1)]
        """
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        padded = [self._grid.fit(1, lengths[row]).length for row in order]
        cuts = self._cuts(padded)
        return [
            MicroBatch(tuple(order[start:end]), self._grid.fit(end - start, padded[end - 1])) for start, end in cuts
        ]

    def urgent(self, lengths: Sequence[int]) -> MicroBatch:
        """The micro-batch of the plan that holds row 0, the one whose turn it is.

        Args:
            lengths: As for `plan`, in order of urgency; at least one.
        """
        return next(batch for batch in self.plan(lengths) if 0 in batch.rows)

    def seconds(self, batches: Sequence[MicroBatch]) -> float:
        """What running `batches` one after the other is taken to cost."""
        return sum(self._cost.seconds(batch.shape.rows, batch.shape.length) for batch in batches)

    def _cuts(self, padded: list[int]) -> list[tuple[int, int]]:
        """The cheapest cuts of rows with ascending `padded` lengths, as (start, end) pairs in order."""
        best = np.zeros(len(padded) + 1)
        start_of = [0] * (len(padded) + 1)
        for end, length in enumerate(padded, start=1):
            most = min(end, self._most_rows(length))
            # Entry k stands for a batch of k + 1 rows: those from end − k − 1 to end − 1.
            batch_s = self._cost.batch_s + self._padded_rows[:most] * self._cost.row_seconds(length)
            candidates = best[end - most : end][::-1] + batch_s
            chosen = int(candidates.argmin())
            best[end] = candidates[chosen]
            start_of[end] = end - 1 - chosen
        return self._walk_back(start_of)

    def _most_rows(self, length: int) -> int:
        """Most rows of `length` in one micro-batch, by padded positions; at least one."""
        fitting = int(np.searchsorted(self._padded_rows, self._max_tokens // length, side="right"))
        return max(1, fitting)

    @staticmethod
    def _walk_back(start_of: list[int]) -> list[tuple[int, int]]:
        cuts = []
        end = len(start_of) - 1
        while end > 0:
            cuts.append((start_of[end], end))
            end = start_of[end]
        return cuts[::-1]
