"""What is timed, how often, and how the least of several timings is kept."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.batching.cost_model import CostModel, fit
from electra_serve.engine.base import ShapeGrid
from electra_serve.engine.keras.buckets import fixed_grid
from electra_serve.engine.profiling import LARGE_SHAPES, QUICK_S, ROUNDS, SHAPES, calibrate, profiling_shapes
from electra_serve.tensors import Batch, ModelOutput, Outputs
from tests.fakes import FakeEngine

FACTORS = st.tuples(st.floats(1e-4, 5e-2), st.floats(1e-7, 1e-3), st.floats(1e-10, 1e-6))


class TimedEngine(FakeEngine):
    """An engine that takes what `cost` says, on a clock of its own; `slower` is asked for a factor at each run."""

    def __init__(self, cost: CostModel, slower: Callable[[int], float] = lambda _: 1.0) -> None:
        super().__init__()
        self.cost = cost
        self.slower = slower
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        self.time += self.cost.seconds(batch.shape.rows, batch.shape.length) * self.slower(len(self.batches))
        return super().run(batch, outputs)


@given(st.integers(1, 64), st.integers(1, 1024), st.integers(1, 10_000))
def test_shapes_fit_the_engine_and_the_budget(max_rows: int, max_length: int, max_tokens: int) -> None:
    grid = ShapeGrid(max_rows=max_rows, max_length=max_length)
    shapes = profiling_shapes(grid, max_tokens)
    assert shapes
    for shape in shapes:
        assert grid.fit(shape.rows, shape.length) == shape
        assert shape.tokens <= max_tokens or shape.rows == 1


def test_the_least_of_the_rounds_counts_and_the_engine_is_warm_first() -> None:
    engine = FakeEngine(max_rows=1, max_length=8)
    ticks = iter([0.0, 0.0, 0.5, 0.5, 0.5, 0.6, 0.6, 0.6, 0.8, 1.0])  # the budget's start, a run, a look, a run, …
    [(shape, seconds)] = calibrate(engine, 64, now=lambda: next(ticks), budget_s=1.0)
    assert engine.warmed == [shape]
    assert seconds == pytest.approx(0.1)
    assert len(engine.batches) == 3


def test_a_timing_too_short_for_the_clock_is_still_positive() -> None:
    assert all(seconds > 0 for _, seconds in calibrate(FakeEngine(), 8192, now=lambda: 7.0))


def test_each_shape_is_timed_by_itself_and_once_where_there_is_no_time() -> None:
    engine = FakeEngine()
    clock = count()
    timings = calibrate(engine, 8192, now=lambda: float(next(clock)))
    assert len(engine.batches) == len(timings) == len(SHAPES)
    assert len({shape for shape, _ in timings}) == len(timings)


def test_rounds_end_in_time() -> None:
    engine = TimedEngine(CostModel(0.0, 1e-4, 0.0))  # 0.12 s a round
    timings = calibrate(engine, 8192, engine.now, budget_s=0.4)
    assert len(engine.batches) == 3 * len(timings)
    assert engine.time <= 0.4


def test_a_quick_engine_is_timed_on_large_shapes_too_and_not_for_ever() -> None:
    engine = TimedEngine(CostModel(1e-3, 1e-6, 0.0))
    timings = calibrate(engine, 8192, engine.now)
    assert len(timings) == len(SHAPES) + len(LARGE_SHAPES)
    assert len(engine.batches) == ROUNDS * len(timings)


def test_large_shapes_are_timed_where_they_are_quick_from_both_sides() -> None:
    for factor, expected in ((0.99, 1), (1.01, 0)):
        engine = TimedEngine(CostModel(0.0, factor * QUICK_S / (32 * 64), 0.0))
        assert len(calibrate(engine, 8192, engine.now)) == len(SHAPES) + expected


@given(FACTORS)
def test_timings_are_enough_to_tell_the_factors(factors: tuple[float, float, float]) -> None:
    engine = TimedEngine(CostModel(*factors))
    found = fit(calibrate(engine, 8192, engine.now))
    for rows, length in ((1, 8), (3, 40), (16, 64), (4, 512)):
        assert found.seconds(rows, length) == pytest.approx(engine.cost.seconds(rows, length), rel=1e-3)


@given(st.integers(0, 5), st.floats(1, 20))
def test_a_disturbance_of_a_round_is_forgotten(first: int, slower: float) -> None:
    disturbed = range(first, first + len(SHAPES))
    engine = TimedEngine(CostModel(2e-3, 3e-5, 1e-8), lambda run: slower if run in disturbed else 1.0)
    found = fit(calibrate(engine, 8192, engine.now, budget_s=10.0))
    assert found.seconds(8, 32) == pytest.approx(engine.cost.seconds(8, 32), rel=1e-6)


@given(st.integers(1, 64), st.integers(1, 1024), st.integers(1, 10_000))
def test_shapes_of_a_fixed_grid_are_in_it(max_rows: int, max_length: int, max_tokens: int) -> None:
    grid = fixed_grid(ShapeGrid(max_rows, max_length, max_tokens=max_tokens))
    shapes = profiling_shapes(grid, max_tokens)
    assert shapes
    assert all(grid.holds(shape) for shape in shapes)
