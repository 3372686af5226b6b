"""Which waiting sequences share a batch.

Padding a batch to its longest row wastes the difference; running rows one by one wastes the fixed cost of a
batch. Sorted by length, the rows of a good batch are neighbours, so the best partition is a way of cutting
one sorted list, and dynamic programming finds it: with lengths l₁ ≤ … ≤ lₙ,

    best(j) = min over i < j of  best(i) + t(j − i, lⱼ)

where t is the engine's cost of a batch of j − i rows padded to lⱼ. Cutting everywhere (one by one) and
nowhere (one batch) are among the candidates, so the plan never costs more than either.

A batch of several rows keeps within two bounds: its positions (memory) and its predicted seconds (how long
newcomers wait behind it). A single row always fits, or it could never run.

Planning happens on the event loop once per batch, so it must stay well below a millisecond. Seconds of every
shape that may be cut are looked up, not computed. And where a row costs the same whatever their number, t
satisfies the quadrangle inequality t(i, j) + t(i', j') ≤ t(i, j') + t(i', j) for i < i' < j < j', which lets the
best i never move back as j grows (F. F. Yao, "Efficient dynamic programming using quadrangle inequalities", STOC
1980); the bounds do not change that, as they only ever exclude more of the small i. Grids with few row counts are
charged for rows that are not there, and get the full search.

Nothing here waits, reads a clock or knows what a request is: lengths in, row numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import add

from electra_serve.batching.cost_model import CostModel
from electra_serve.engine.base import ShapeGrid
from electra_serve.tensors import BatchShape


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
        max_tokens: Most positions in a micro-batch of several rows, padding included.
        target_batch_s: Most seconds that a micro-batch of several rows may take by `cost`; default: any.
    """

    def __init__(self, cost: CostModel, grid: ShapeGrid, *, max_tokens: int, target_batch_s: float = math.inf) -> None:
        self._cost = cost
        self._grid = grid
        self._max_tokens = max_tokens
        self._target_batch_s = target_batch_s
        self._padded = [grid.fit(1, max(1, length)).length for length in range(grid.max_length + 1)]  # by length
        self._batch_s = {length: self._seconds_by_rows(length) for length in set(self._padded)}

    @property
    def cost(self) -> CostModel:
        """What a batch is taken to cost."""
        return self._cost

    @property
    def max_tokens(self) -> int:
        """Most positions in a micro-batch of several rows, whatever its cost."""
        return self._max_tokens

    def reduce_max_tokens(self, max_tokens: int) -> None:
        """Allows fewer positions from now on."""
        self._max_tokens = max_tokens
        self._batch_s = {length: self._seconds_by_rows(length) for length in self._batch_s}

    @property
    def batch_tokens(self) -> int:
        """Most positions, padding included, in any micro-batch of several rows that both bounds and the grid allow.

        0 where no two rows may share one.
        """
        most = ((len(batch_s), length) for length, batch_s in self._batch_s.items() if len(batch_s) > 1)
        return max((self._grid.fit(rows, length).tokens for rows, length in most), default=0)

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
            [(2, 0), (3, 1)]
        """
        order, padded = self._sorted(lengths)
        return [self._micro_batch(order, padded, start, end) for start, end in self._cuts(padded)][::-1]

    def plan_next(self, lengths: Sequence[int]) -> MicroBatch:
        """The micro-batch of the plan that holds row 0, the one whose turn it is.

        Args:
            lengths: As for `plan`, in order of urgency; at least one.
        """
        order, padded = self._sorted(lengths)
        first = order.index(0)
        return next(
            self._micro_batch(order, padded, start, end) for start, end in self._cuts(padded) if start <= first < end
        )

    def seconds(self, batches: Sequence[MicroBatch]) -> float:
        """What running `batches` one after the other is taken to cost."""
        return sum(self._cost.seconds(batch.shape.rows, batch.shape.length) for batch in batches)

    def _sorted(self, lengths: Sequence[int]) -> tuple[list[int], list[int]]:
        """The rows, shortest first, and the length that each is padded to by itself.

        Of equal lengths the most urgent come last: where several cuts cost the same, the last micro-batch is the one
        that is full, and a full one should go first.
        """
        order = sorted(range(len(lengths) - 1, -1, -1), key=lengths.__getitem__)
        for row in order[:1] + order[-1:]:
            self._grid.fit(1, lengths[row])
        return order, [self._padded[lengths[row]] for row in order]

    def _micro_batch(self, order: list[int], padded: list[int], start: int, end: int) -> MicroBatch:
        return MicroBatch(tuple(order[start:end]), self._grid.fit(end - start, padded[end - 1]))

    def _cuts(self, padded: list[int]) -> Iterator[tuple[int, int]]:
        """The cheapest cuts of rows with ascending `padded` lengths: (start, end), longest rows first."""
        starts = self._starts(padded)
        end = len(padded)
        while end > 0:
            yield starts[end], end
            end = starts[end]

    def _starts(self, padded: list[int]) -> list[int]:
        """Where the last micro-batch starts in the cheapest plan of the first j rows, for each j."""
        best_s = [0.0]
        starts = [0]
        for end, length in enumerate(padded, start=1):
            batch_s = self._batch_s[length]
            # Starts never move back, except on grids with few row counts: see the top.
            earliest = max(0 if self._grid.rows else starts[-1], end - len(batch_s))
            candidates = list(map(add, best_s[earliest:], batch_s[earliest - end :]))
            least = min(candidates)
            best_s.append(least)
            starts.append(earliest + candidates.index(least))
        return starts

    def _seconds_by_rows(self, length: int) -> tuple[float, ...]:
        """Seconds of the micro-batches of `length` that may be cut, from the most rows down to one."""
        seconds = [self._cost.seconds(self._grid.fit(1, length).rows, length)]
        for rows in range(2, self._grid.max_rows + 1):
            shape = self._grid.fit(rows, length)
            batch_s = self._cost.seconds(shape.rows, length)
            if shape.tokens > self._max_tokens or batch_s > self._target_batch_s:
                break
            seconds.append(batch_s)
        return tuple(reversed(seconds))
