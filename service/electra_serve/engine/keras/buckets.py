"""Which shapes to compile, for engines that compile each: few enough to compile, close enough to waste little.

Each length is about a quarter above the one before, so that a row pads to 1.12 times its length on average, and a
multiple of `LENGTH_STEP`, as matrix units like it. Row counts are powers of two: the planner knows what padding rows
cost and avoids it where it can. 512 positions and 32 rows make 19 lengths by 6 row counts; the token budget takes the
largest of them away.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from electra_serve.engine.base import ShapeGrid

LENGTH_STEP: Final = 8
GROWTH: Final = 1.25
"""How much longer each length is than the one before. Less pads less and compiles more."""


def fixed_grid(grid: ShapeGrid) -> ShapeGrid:
    """`grid`, its row counts and lengths fixed where they were free.

    Example:
        >>> fixed = fixed_grid(ShapeGrid(max_rows=12, max_length=100, max_tokens=400))
        >>> fixed.rows, fixed.lengths
        ((1, 2, 4, 8, 12), (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 100))
        >>> sum(1 for _ in fixed.shapes())
        43
    """
    return replace(grid, rows=grid.rows or _rows(grid.max_rows), lengths=grid.lengths or _lengths(grid.max_length))


def _rows(most: int) -> tuple[int, ...]:
    """1, 2, 4, … and `most`."""
    powers = (2**exponent for exponent in range(most.bit_length()))
    return tuple(sorted({*powers, most}))


def _lengths(longest: int) -> tuple[int, ...]:
    lengths, length = [], LENGTH_STEP
    while length < longest:
        lengths.append(length)
        grown = int(length * GROWTH) // LENGTH_STEP * LENGTH_STEP
        length = max(grown, length + LENGTH_STEP)
    return (*lengths, longest)
