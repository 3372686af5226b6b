"""Warms an engine and times it, so that the cost model speaks of this model on this machine.

A start may not take long, and machines are busy while services start. So a few small shapes are timed in rounds:
what disturbs a timing only adds to it, the least of several is near the truth, and a disturbance shorter than a round
spoils one timing of each shape at most. One round is always run; the others only while there is time.

Larger shapes tell apart what a batch costs and what a position costs where small ones are all alike, as on GPUs. They
are timed where they are quick, and nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from electra_serve.engine.base import Engine, ShapeGrid
from electra_serve.tensors import Batch, BatchShape, Output

Timing = tuple[BatchShape, float]
"""A batch shape, and the seconds that a batch of it took."""

ROUNDS: Final = 5
BUDGET_S: Final = 1.0
"""Seconds after which no further round begins. The first round of an ELECTRA base takes 0.3 s on two cores."""
QUICK_S: Final = 0.05
"""Most seconds that one of `LARGE_SHAPES` may be expected to take."""

SHAPES: Final = ((1, 16), (1, 64), (1, 256), (8, 16), (8, 32), (16, 32))
"""Rows and lengths to time: enough spread to tell the fixed, the linear and the quadratic part apart, in about
1,200 positions."""
LARGE_SHAPES: Final = ((32, 64), (8, 512), (32, 256))


def profiling_shapes(
    grid: ShapeGrid, max_tokens: int, shapes: Sequence[tuple[int, int]] = SHAPES
) -> tuple[BatchShape, ...]:
    """Those of `shapes` that an engine takes, fitted to its grid, none above `max_tokens` but single rows.

    Example:
        >>> grid = ShapeGrid(max_rows=8, max_length=64)
        >>> [(shape.rows, shape.length) for shape in profiling_shapes(grid, max_tokens=128)]
        [(1, 16), (1, 64), (8, 16)]
    """
    fitted = {grid.fit(rows, min(length, grid.max_length)) for rows, length in shapes if rows <= grid.max_rows}
    fitting = [shape for shape in fitted if shape.rows == 1 or shape.tokens <= max_tokens]
    return tuple(sorted(fitting, key=lambda shape: (shape.tokens, shape.rows)))


def calibrate(
    engine: Engine, max_tokens: int, now: Callable[[], float] = time.perf_counter, *, budget_s: float = BUDGET_S
) -> list[Timing]:
    """Warms `engine` and times a batch of each calibration shape.

    Args:
        engine: Warmed here.
        max_tokens: Most positions in a batch.
        now: Seconds of a clock that never goes back.
        budget_s: Seconds that timing may take, one round excepted.

    Returns:
        Each shape with the least of its timings in seconds.
    """
    grid = engine.signature.grid
    shapes = profiling_shapes(grid, max_tokens)
    engine.warm_up(shapes)
    end = now() + budget_s
    least = {shape: _seconds(engine, shape, now) for shape in shapes}
    for shape in profiling_shapes(grid, max_tokens, LARGE_SHAPES):
        if _expected_s(shape, least) <= QUICK_S:
            least[shape] = _seconds(engine, shape, now)
    for _ in range(ROUNDS - 1):
        if now() + sum(least.values()) > end:
            break
        for shape, seconds in least.items():
            least[shape] = min(seconds, _seconds(engine, shape, now))
    return list(least.items())


def _expected_s(shape: BatchShape, least: dict[BatchShape, float]) -> float:
    """By the positions of the largest shape timed so far; too much rather than too little, as it has a fixed part."""
    largest = max(least, key=lambda timed: timed.tokens)
    return least[largest] * shape.tokens / largest.tokens


def _seconds(engine: Engine, shape: BatchShape, now: Callable[[], float]) -> float:
    batch = full_batch(shape)
    started = now()
    engine.run(batch, frozenset({Output.MEAN}))
    return max(now() - started, 1e-9)


def full_batch(shape: BatchShape) -> Batch:
    """A batch of that shape without padding, every id 0: valid for any vocabulary."""
    zeros = np.zeros((shape.rows, shape.length), np.int32)
    return Batch(zeros, zeros, np.ones_like(zeros))
