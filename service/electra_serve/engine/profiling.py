"""Warms up engines and times each batch shape: the cost table of a model on this machine.

Engines that share the queue run at the same time, as under load. Disturbances only add time, so the least of several
rounds counts, and a shape takes no longer than a larger one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from electra_serve.engine.base import Engine
from electra_serve.tensors import Batch, BatchShape, Encoding, Output

Timings = dict[BatchShape, float]  # seconds of a batch of each shape

ROUNDS: Final = 4
BUDGET_S: Final = 0.2  # no further round starts after this time
SLOW_S: Final = 0.1  # A slower shape is timed once; its first run adds little, 20 ms for a base model.
# Shapes up to this multiple of the target are timed, since the machine may be busy; the planner applies the target.
MARGIN: Final = 1.5


def calibrate(
    engines: Sequence[Engine],
    target_batch_s: float,
    now: Callable[[], float] = time.perf_counter,
    *,
    budget_s: float = BUDGET_S,
) -> Timings:
    """Warms up identical engines and returns the least seconds of each shape, while all of them run one.

    Shapes of several rows far above `target_batch_s` are left out.
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
                first_s = seconds(shape)  # may include the choice of kernels
                timings[shape] = first_s if first_s > SLOW_S else min(first_s, seconds(shape))
        end = now() + budget_s
        for _ in range(ROUNDS - 1):
            if now() + sum(timings.values()) > end:
                break
            for shape, before_s in timings.items():
                timings[shape] = min(before_s, seconds(shape))
    return without_outliers(timings)


def without_outliers(timings: Timings) -> Timings:
    """Limits each timing to that of any shape with at least as many rows and as much length.

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
    largest = max(timings, key=lambda timed: timed.positions)
    return timings[largest] * shape.positions / largest.positions


def _seconds(engine: Engine, shape: BatchShape, now: Callable[[], float]) -> float:
    batch = full_batch(shape)
    started = now()
    engine.run(batch, frozenset({Output.MEAN}))
    return max(now() - started, 1e-9)


def full_batch(shape: BatchShape) -> Batch:
    """Returns a batch without padding, of one sequence per row, with id 0 everywhere."""
    zeros = np.zeros(shape.length, np.int32)
    sequence = Encoding(zeros, zeros, np.ones_like(zeros), compute_length=shape.length, real_tokens=shape.length)
    return Batch.one_per_row([sequence] * shape.rows, shape)
