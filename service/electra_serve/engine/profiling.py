"""Warms an engine and times each of its shapes once it is warm: the cost table of this model on this machine.

A start may not take long, and machines are busy while services start. So shapes are timed smallest first, and those of
several rows that would take longer than batches may are passed over. Then all are timed again in rounds while there is
time: what disturbs a timing only adds to it, so the least of several is near the truth. For the same reason a shape
takes no longer than one that holds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from electra_serve.engine.base import Engine
from electra_serve.tensors import Batch, BatchShape, Encoding, Output

Timings = dict[BatchShape, float]
"""Batch shapes, and the seconds that a batch of each took."""

ROUNDS: Final = 4
BUDGET_S: Final = 0.4
"""Seconds after which no further round begins."""
SLOW_S: Final = 0.1
"""A shape that takes longer is run once. What its first run takes beside that is little: 20 ms for a base model."""


def calibrate(
    engine: Engine,
    target_batch_s: float,
    now: Callable[[], float] = time.perf_counter,
    *,
    budget_s: float = BUDGET_S,
) -> Timings:
    """Warms `engine` and times a batch of each shape.

    Args:
        engine: Warmed here.
        target_batch_s: Most seconds of a batch of several sequences.
        now: Seconds of a clock that never goes back.
        budget_s: Seconds that further rounds of timing may take.

    Returns:
        Each shape with the least of its timings in seconds. Shapes of several rows are left out if they are expected
        to take more than `target_batch_s`.
    """
    engine.warm_up()
    timings: Timings = {}
    for shape in engine.signature.shapes:
        if shape.rows == 1 or _expected_s(shape, timings) <= target_batch_s:
            timings[shape] = _first_timing(engine, shape, now)
    end = now() + budget_s
    for _ in range(ROUNDS - 1):
        if now() + sum(timings.values()) > end:
            break
        for shape, seconds in timings.items():
            timings[shape] = min(seconds, _seconds(engine, shape, Output.MEAN, now))
    return without_outliers(timings)


def run_each(engine: Engine, timings: Timings) -> None:
    """Warms `engine` and runs each of the shapes, of an engine like it, that are used and not slow."""
    engine.warm_up()
    for shape in (shape for shape, seconds in timings.items() if seconds <= SLOW_S):
        for output in (Output.MEAN, Output.CLS):
            engine.run(full_batch(shape), frozenset({output}))


def without_outliers(timings: Timings) -> Timings:
    """`timings`, none above that of a shape with as many rows and positions in each, or more.

    Example:
        >>> without_outliers({BatchShape(1, 16): 0.09, BatchShape(1, 32): 0.02, BatchShape(2, 16): 0.03})
        {BatchShape(rows=1, length=16): 0.02, BatchShape(rows=1, length=32): 0.02, BatchShape(rows=2, length=16): 0.03}
    """
    return {
        shape: min(
            seconds for other, seconds in timings.items() if other.rows >= shape.rows and other.length >= shape.length
        )
        for shape in timings
    }


def _first_timing(engine: Engine, shape: BatchShape, now: Callable[[], float]) -> float:
    """Runs both ways of computing a shape, with all positions and with the first ones alone, and times the former.

    A slow shape is run once.
    """
    first_s = _seconds(engine, shape, Output.MEAN, now)
    if first_s > SLOW_S:
        return first_s
    _seconds(engine, shape, Output.CLS, now)
    return min(first_s, _seconds(engine, shape, Output.MEAN, now))


def _expected_s(shape: BatchShape, timings: Timings) -> float:
    """By the positions of the largest shape timed so far."""
    largest = max(timings, key=lambda timed: timed.positions)
    return timings[largest] * shape.positions / largest.positions


def _seconds(engine: Engine, shape: BatchShape, output: Output, now: Callable[[], float]) -> float:
    batch = full_batch(shape)
    started = now()
    engine.run(batch, frozenset({output}))
    return max(now() - started, 1e-9)


def full_batch(shape: BatchShape) -> Batch:
    """A batch of one sequence in each row, without padding, every id 0: valid for any vocabulary."""
    zeros = np.zeros(shape.length, np.int32)
    sequence = Encoding(zeros, zeros, np.ones_like(zeros), compute_length=shape.length, real_tokens=shape.length)
    return Batch.one_per_row([sequence] * shape.rows, shape)
