"""Warms engines and times each of their shapes once they are warm: the cost table of this model on this machine.

A start may not take long, and machines are busy while services start. So shapes are timed smallest first, and those of
several rows that would take longer than batches may are passed over. Engines that share the queue run at the same time,
as they do under load. Then all shapes are timed again in rounds while there is time: what disturbs a timing only adds
to it, so the least of several is near the truth. For the same reason a shape takes no longer than one that holds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from electra_serve.engine.base import Engine
from electra_serve.tensors import Batch, BatchShape, Encoding, Output

Timings = dict[BatchShape, float]
"""Batch shapes, and the seconds that a batch of each took."""

ROUNDS: Final = 4
BUDGET_S: Final = 0.2
"""Seconds after which no further round begins."""
SLOW_S: Final = 0.1
"""A shape that takes longer is run once. What its first run takes beside that is little: 20 ms for a base model."""
MARGIN: Final = 1.5
"""A shape is left out if it is expected to take so many times the longest that a batch may: the start may be noisy, and
the planner leaves out what is too slow by its own timing."""


def calibrate(
    engines: Sequence[Engine],
    target_batch_s: float,
    now: Callable[[], float] = time.perf_counter,
    *,
    budget_s: float = BUDGET_S,
) -> Timings:
    """Warms engines that are alike, and times a batch of each shape while all of them run one.

    Args:
        engines: Warmed here; at least one.
        target_batch_s: Most seconds of a batch of several sequences.
        now: Seconds of a clock that never goes back.
        budget_s: Seconds that further rounds of timing may take.

    Returns:
        Each shape with the least of its timings in seconds. Shapes of several rows are left out if they are expected
        to take much more than `target_batch_s`.
    """
    for engine in engines:
        engine.warm_up()
    with ThreadPoolExecutor(len(engines)) as pool:

        def seconds(shape: BatchShape) -> float:
            first_s, *_ = pool.map(lambda engine: _seconds(engine, shape, now), engines)
            return first_s

        timings: Timings = {}
        for shape in engines[0].signature.shapes:
            if shape.rows == 1 or _expected_s(shape, timings) <= MARGIN * target_batch_s:
                first_s = seconds(shape)  # in which kernels may be chosen
                timings[shape] = first_s if first_s > SLOW_S else min(first_s, seconds(shape))
        end = now() + budget_s
        for _ in range(ROUNDS - 1):
            if now() + sum(timings.values()) > end:
                break
            for shape, before_s in timings.items():
                timings[shape] = min(before_s, seconds(shape))
    return without_outliers(timings)


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


def _expected_s(shape: BatchShape, timings: Timings) -> float:
    """By the positions of the largest shape timed so far."""
    largest = max(timings, key=lambda timed: timed.positions)
    return timings[largest] * shape.positions / largest.positions


def _seconds(engine: Engine, shape: BatchShape, now: Callable[[], float]) -> float:
    batch = full_batch(shape)
    started = now()
    engine.run(batch, frozenset({Output.MEAN}))
    return max(now() - started, 1e-9)


def full_batch(shape: BatchShape) -> Batch:
    """A batch of one sequence in each row, without padding, every id 0: valid for any vocabulary."""
    zeros = np.zeros(shape.length, np.int32)
    sequence = Encoding(zeros, zeros, np.ones_like(zeros), compute_length=shape.length, real_tokens=shape.length)
    return Batch.one_per_row([sequence] * shape.rows, shape)
