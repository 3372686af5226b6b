"""Shapes are timed in rounds, and the least of several timings counts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.engine.profiling import ROUNDS, SLOW_S, calibrate, without_outliers
from electra_serve.tensors import Batch, BatchShape, ModelOutput, Outputs
from tests.fakes import FAKE_SHAPES, FakeEngine

POSITIONS = sum(rows * length for rows, length in FAKE_SHAPES)
FIRST_RUNS = 2
"""Runs of each shape: one that may choose kernels, and one more."""


class TimedEngine(FakeEngine):
    """An engine that takes `batch_s` and `position_s` for each position, on a clock of its own.

    `slower` is called with the number of each run for a factor.
    """

    def __init__(self, batch_s: float, position_s: float, slower: Callable[[int], float] = lambda _: 1.0) -> None:
        super().__init__()
        self.batch_s, self.position_s = batch_s, position_s
        self.slower = slower
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def seconds(self, shape: BatchShape) -> float:
        return self.batch_s + self.position_s * shape.positions

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        self.time += self.seconds(batch.shape) * self.slower(len(self.batches))
        return super().run(batch, outputs)


def test_each_shape_is_timed_by_the_least_of_the_rounds_and_the_engine_is_warm_first() -> None:
    engine = TimedEngine(1e-4, 1e-6)  # all shapes are fast
    timings = calibrate([engine], 0.2, engine.now, budget_s=10.0)
    assert engine.warm_ups == 1
    assert timings == pytest.approx({shape: engine.seconds(shape) for shape in engine.signature.shapes})
    assert len(engine.batches) == ROUNDS * len(FAKE_SHAPES)


def test_a_timing_too_short_for_the_clock_is_still_positive() -> None:
    assert all(seconds > 0 for seconds in calibrate([FakeEngine()], 0.2, now=lambda: 7.0).values())


def test_engines_that_are_alike_run_each_shape_at_the_same_time() -> None:
    barrier = threading.Barrier(2)
    engines = [MeetingEngine(barrier) for _ in range(2)]
    timings = calibrate(engines, 1e9)
    assert timings.keys() == set(engines[0].signature.shapes)
    assert [engine.warm_ups for engine in engines] == [1, 1]


class MeetingEngine(FakeEngine):
    """An engine whose batches each wait for another engine's."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__()
        self.barrier = barrier

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        self.barrier.wait(10)
        return super().run(batch, outputs)


def test_slow_shapes_are_run_once() -> None:
    engine = TimedEngine(0.0, 1.9 * SLOW_S / 64)
    timings = calibrate([engine], 1e9, engine.now, budget_s=0.0)
    assert timings == pytest.approx({shape: engine.seconds(shape) for shape in engine.signature.shapes})
    runs = Counter(batch.shape for batch in engine.batches)
    assert runs.pop(BatchShape(1, 16)) > 1  # nothing is known yet
    assert set(runs.values()) == {1}


def test_what_the_first_run_of_a_fast_shape_costs_is_subtracted_from_a_slow_one() -> None:
    kernels_s = 5e-3
    engine = FirstRunEngine(0.0, 2.2 * SLOW_S / 512, kernels_s)
    timings = calibrate([engine], 1e9, engine.now, budget_s=0.0)
    assert timings == pytest.approx({shape: engine.seconds(shape) for shape in engine.signature.shapes})
    assert Counter(batch.shape for batch in engine.batches)[BatchShape(8, 64)] == 1


class FirstRunEngine(TimedEngine):
    """A timed engine that takes `kernels_s` more for the first batch of each shape."""

    def __init__(self, batch_s: float, position_s: float, kernels_s: float) -> None:
        super().__init__(batch_s, position_s)
        self.kernels_s = kernels_s

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        self.time += self.kernels_s * all(ran.shape != batch.shape for ran in self.batches)
        return super().run(batch, outputs)


def test_engines_are_timed_until_the_last_is_done() -> None:
    fast, slow = TimedEngine(0.0, 0.0), TimedEngine(0.02, 0.0)
    timings = calibrate([fast, slow], 1e9, slow.now)
    assert min(timings.values()) == pytest.approx(0.02)


def test_rounds_end_in_time_and_start_with_the_smallest_shapes() -> None:
    engine = TimedEngine(0.0, 1e-5)
    calibrate([engine], 1e9, engine.now, budget_s=81e-5)  # (1, 16) and (1, 64) fit
    smallest = sorted(engine.signature.shapes, key=lambda shape: shape.positions)
    runs = Counter(batch.shape for batch in engine.batches)
    assert [runs[shape] for shape in smallest[:2]] == [FIRST_RUNS + 1] * 2
    assert {runs[shape] for shape in smallest[2:]} == {FIRST_RUNS}


@pytest.mark.parametrize(("target_s", "left_out"), [(0.342, 0), (0.341, 1), (0.171, 1), (0.1705, 2), (0.001, 3)])
def test_batches_that_would_take_too_long_are_left_out_and_single_rows_never(target_s: float, left_out: int) -> None:
    engine = TimedEngine(0.0, 1e-3)  # 0.512 s for (8, 64), 0.256 s for (4, 64)
    timings = calibrate([engine], target_s, engine.now)
    assert len(timings) == len(FAKE_SHAPES) - left_out
    assert sum(shape.rows == 1 for shape in timings) == sum(rows == 1 for rows, _ in FAKE_SHAPES)


@given(st.integers(0, len(FAKE_SHAPES) * FIRST_RUNS), st.floats(1, 20))
def test_a_disturbance_as_long_as_a_round_is_forgotten(first: int, slower: float) -> None:
    disturbed = range(first, first + len(FAKE_SHAPES))
    engine = TimedEngine(2e-4, 3e-6, lambda run: slower if run in disturbed else 1.0)
    timings = calibrate([engine], 1e9, engine.now, budget_s=100.0)
    assert timings == pytest.approx({shape: engine.seconds(shape) for shape in engine.signature.shapes})


@given(st.dictionaries(st.builds(BatchShape, st.integers(1, 8), st.integers(1, 512)), st.floats(1e-6, 10), min_size=1))
def test_no_shape_takes_longer_than_one_that_holds_it(timings: dict[BatchShape, float]) -> None:
    cleaned = without_outliers(timings)
    for shape, seconds in cleaned.items():
        assert seconds <= timings[shape]
        assert all(
            seconds <= cleaned[other] for other in cleaned if other.rows >= shape.rows and other.length >= shape.length
        )
