"""What is timed, and how the least of several timings is kept."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from service.engine.base import ShapeGrid
from service.engine.calibration import REPEATS, calibrate, calibration_shapes
from service.engine.fixed_grid import fixed_grid
from tests.fakes import FakeEngine


@given(st.integers(1, 64), st.integers(1, 1024), st.integers(1, 10_000))
def test_shapes_fit_the_engine_and_the_budget(max_rows: int, max_length: int, max_tokens: int) -> None:
    grid = ShapeGrid(max_rows=max_rows, max_length=max_length)
    shapes = calibration_shapes(grid, max_tokens)
    assert shapes
    for shape in shapes:
        assert grid.fit(shape.rows, shape.length) == shape
        assert shape.tokens <= max_tokens or shape.rows == 1


def test_the_least_of_the_repeats_counts_and_the_engine_is_warm_first() -> None:
    engine = FakeEngine(max_rows=1, max_length=8)
    ticks = iter([0.0, 5.0, 10.0, 11.0, 20.0, 23.0])
    [(shape, seconds)] = calibrate(engine, 64, now=lambda: next(ticks))
    assert engine.warmed == [shape]
    assert seconds == 1.0
    assert len(engine.batches) == REPEATS


def test_a_timing_too_short_for_the_clock_is_still_positive() -> None:
    assert all(seconds > 0 for _, seconds in calibrate(FakeEngine(), 8192, now=lambda: 7.0))


def test_each_shape_is_timed_by_itself() -> None:
    engine = FakeEngine()
    clock = count()
    timings = calibrate(engine, 8192, now=lambda: float(next(clock)))
    assert len(engine.batches) == REPEATS * len(timings)
    assert len({shape for shape, _ in timings}) == len(timings)


@given(st.integers(1, 64), st.integers(1, 1024), st.integers(1, 10_000))
def test_shapes_of_a_fixed_grid_are_in_it(max_rows: int, max_length: int, max_tokens: int) -> None:
    grid = fixed_grid(ShapeGrid(max_rows, max_length, max_tokens=max_tokens))
    shapes = calibration_shapes(grid, max_tokens)
    assert shapes
    assert all(grid.holds(shape) for shape in shapes)
