"""Warms an engine and times it, so that the cost model speaks of this model on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from service.engine.base import Engine, ShapeGrid
from service.tensors import Batch, BatchShape, Output

Timing = tuple[BatchShape, float]
"""A batch shape, and the seconds that a batch of it took."""

REPEATS: Final = 3
SHAPES: Final = ((1, 8), (1, 32), (1, 128), (1, 512), (4, 32), (4, 128), (8, 32), (8, 64), (16, 32))
"""Rows and lengths to time: enough spread to tell the fixed, the linear and the quadratic part apart."""


def calibration_shapes(grid: ShapeGrid, max_tokens: int) -> tuple[BatchShape, ...]:
    """The `SHAPES` that an engine takes, fitted to its grid, none above `max_tokens` but single rows.

    Example:
        >>> grid = ShapeGrid(max_rows=4, max_length=64)
        >>> [(shape.rows, shape.length) for shape in calibration_shapes(grid, max_tokens=128)]
        [(1, 8), (1, 32), (1, 64), (4, 32)]
    """
    fitted = {grid.fit(rows, min(length, grid.max_length)) for rows, length in SHAPES if rows <= grid.max_rows}
    return tuple(sorted(shape for shape in fitted if shape.rows == 1 or shape.tokens <= max_tokens))


def calibrate(engine: Engine, max_tokens: int, now: Callable[[], float] = time.perf_counter) -> list[Timing]:
    """Warms `engine` and times a batch of each calibration shape.

    Args:
        engine: Warmed here.
        max_tokens: Most positions in a batch.
        now: Seconds of a clock that never goes back.

    Returns:
        Each shape with the least of `REPEATS` timings in seconds: what disturbs a timing only adds to it.
    """
    shapes = calibration_shapes(engine.signature.grid, max_tokens)
    engine.warm_up(shapes)
    return [(shape, _least_seconds(engine, shape, now)) for shape in shapes]


def _least_seconds(engine: Engine, shape: BatchShape, now: Callable[[], float]) -> float:
    batch = full_batch(shape)
    outputs = frozenset({Output.MEAN})
    least = float("inf")
    for _ in range(REPEATS):
        started = now()
        engine.run(batch, outputs)
        least = min(least, now() - started)
    return max(least, 1e-9)


def full_batch(shape: BatchShape) -> Batch:
    """A batch of that shape without padding, every id 0: valid for any vocabulary."""
    zeros = np.zeros((shape.rows, shape.length), np.int32)
    return Batch(zeros, zeros, np.ones_like(zeros))
