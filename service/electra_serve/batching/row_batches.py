"""Finds the cheapest batches for packed rows, by dynamic programming over a table of shapes and their seconds.

A row may run in any shape at least as long as its used positions. For rows with u₁ ≤ … ≤ uₙ, the first j cost

    best(j) = min over shapes (R, P) with P ≥ uⱼ of  seconds(R, P) + best(max(0, j − R))
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from electra_serve.batching.cost_model import CostTable
from electra_serve.tensors import BatchShape

CHEAPER: Final = 1 - 1e-9  # sums differ by their order; only larger differences count

_Option = tuple[int, float, BatchShape]  # rows, seconds, shape


class RowBatches:
    """Cheapest batches for rows of given kinds: a row's kind is the index of the smallest length that holds it."""

    def __init__(self, costs: CostTable, shapes: Sequence[BatchShape]) -> None:
        self.lengths = sorted({shape.length for shape in shapes})
        self.max_length = max(self.lengths, default=0)
        # The kind of a row, by its used positions.
        self.kinds = [bisect_left(self.lengths, used) for used in range(self.max_length + 1)]
        self._options = [_options(costs, shapes, length) for length in self.lengths]
        self.position_seconds = [
            min(costs.seconds(shape) / shape.positions for shape in shapes if shape.length >= length)
            for length in self.lengths
        ]
        self._equal_s = [[0.0] for _ in self.lengths]

    def seconds(self, kinds: Sequence[int]) -> float:
        """Returns the least seconds of rows of these kinds, in ascending order."""
        best_s = [0.0]
        for kind in kinds:
            best_s.append(self._last_batch(kind, best_s)[0])
        return best_s[-1]

    def equal_seconds(self, kind: int, count: int) -> float:
        """Returns the least seconds of `count` rows of one kind."""
        best_s = self._equal_s[kind]
        while len(best_s) <= count:
            best_s.append(self._last_batch(kind, best_s)[0])
        return best_s[count]

    def cut(self, kinds: Sequence[int]) -> Iterator[tuple[slice, BatchShape]]:
        """Yields the rows of each cheapest batch and its shape: longest rows first, then the largest batch."""
        best_s = [0.0]
        shapes = []
        for kind in kinds:
            seconds, shape = self._last_batch(kind, best_s)
            best_s.append(seconds)
            shapes.append(shape)
        end = len(kinds)
        while end > 0:
            start = max(0, end - shapes[end - 1].rows)
            yield slice(start, end), shapes[end - 1]
            end = start

    def _last_batch(self, kind: int, best_s: list[float]) -> tuple[float, BatchShape]:
        count = len(best_s)
        least_s = math.inf
        for rows, seconds, option in self._options[kind]:
            if rows < count:
                seconds += best_s[count - rows]
            if seconds < least_s * CHEAPER:
                least_s, shape = seconds, option
        return least_s, shape


def _options(costs: CostTable, shapes: Sequence[BatchShape], length: int) -> list[_Option]:
    options: list[_Option] = []
    fitting = [(shape.rows, costs.seconds(shape), shape) for shape in shapes if shape.length >= length]
    for option in sorted(fitting, key=lambda option: (-option[0], option[1])):
        if not options or option[1] < options[-1][1]:
            options.append(option)
    return options
