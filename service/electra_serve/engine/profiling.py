"""Warms up engines and times each batch shape: the cost table of a model on this machine.

Engines that share the queue run at the same time, as under load. Disturbances only add time, so the least of several
rounds counts, and a shape takes no longer than a larger one. Slow shapes run once, since every run delays the start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from electra_serve.engine.base import Engine
from electra_serve.runtime.progress import NO_PROGRESS, Progress
from electra_serve.tensors import Batch, BatchShape, Encoding, Output

Timings = dict[BatchShape, float]  # seconds of a batch of each shape

ROUNDS: Final = 4
BUDGET_S: Final = 0.1  # of the rounds after the second
SLOW_S: Final = 0.03  # a shape that takes longer runs once
# The machine may be busy: shapes up to this multiple of the target are timed, and the planner applies the target.
# A slow shape runs again above this multiple of its expected time.
MARGIN: Final = 1.5
TIMED_OUTPUTS: Final = frozenset({Output.MEAN})


def calibrate(
    engines: Sequence[Engine],
    target_batch_s: float,
    now: Callable[[], float] = time.perf_counter,
    *,
    budget_s: float = BUDGET_S,
    progress: Progress = NO_PROGRESS,
    name: str = "",
) -> Timings:
    """Warms up identical engines and returns the least seconds of each shape, while all of them run one.

    Shapes of several rows far above `target_batch_s` are left out. `progress` receives the number of shapes of the
    model `name` that are done.
    """
    shapes = engines[0].signature.shapes
    progress.update("warming up", name, 0, len(shapes), "shapes")
    for engine in engines:
        engine.warm_up()
    with ThreadPoolExecutor(len(engines)) as pool:

        def seconds(shape: BatchShape) -> float:
            """Returns the seconds until the last engine is done: one that runs alone for a while is faster."""
            batch = full_batch(shape)
            started = now()
            for _ in pool.map(lambda engine: engine.run(batch, TIMED_OUTPUTS), engines):
                pass
            return max(now() - started, 1e-9)

        timings: Timings = {}
        first_run_costs: list[float] = []  # the choice of kernels
        for index, shape in enumerate(shapes):
            progress.update("warming up", name, index, len(shapes), "shapes")
            expected_s = _expected_s(shape, timings)
            if shape.rows > 1 and expected_s > MARGIN * target_batch_s:
                continue
            first_s = seconds(shape)
            if SLOW_S < first_s <= MARGIN * expected_s:
                timings[shape] = _without_first_run_cost(first_s, first_run_costs)
            else:
                second_s = seconds(shape)
                first_run_costs.append(first_s - second_s)
                timings[shape] = min(first_s, second_s)
        end = now() + budget_s
        for shape in list(timings) * (ROUNDS - 2):  # smallest first, since they are the least exact
            if now() + timings[shape] > end:
                break
            timings[shape] = min(timings[shape], seconds(shape))
    progress.end()
    return without_outliers(timings)


def _without_first_run_cost(seconds: float, costs: Sequence[float]) -> float:
    """Subtracts the least that the first run of another shape cost, up to a half."""
    return max(seconds - max(min(costs), 0), seconds / 2)


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
    if not timings:
        return 0.0
    largest = max(timings, key=lambda timed: timed.positions)
    return timings[largest] * shape.positions / largest.positions


def full_batch(shape: BatchShape) -> Batch:
    """Returns a batch without padding, of one sequence per row, with id 0 everywhere."""
    zeros = np.zeros(shape.length, np.int32)
    sequence = Encoding(zeros, zeros, np.ones_like(zeros), compute_length=shape.length, real_tokens=shape.length)
    return Batch.one_per_row([sequence] * shape.rows, shape)
