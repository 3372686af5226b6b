"""The table returns its timings; the correction follows lasting changes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.batching.cost_model import MAX_STEP, CostTable, DriftCorrection
from electra_serve.tensors import BatchShape

SHAPES = [BatchShape(rows, length) for rows in (1, 4, 16) for length in (8, 32, 128, 512)]
ONE_ROW = BatchShape(1, 16)


@given(st.dictionaries(st.sampled_from(SHAPES), st.floats(1e-6, 10)))
def test_table_returns_each_timing(timings: dict[BatchShape, float]) -> None:
    table = CostTable({ONE_ROW: 0.001, **timings})
    assert {shape: table.seconds(shape) for shape in table.shapes} == {ONE_ROW: 0.001, **timings}


def test_shapes_are_sorted_by_positions_then_rows() -> None:
    shapes = [BatchShape(4, 32), BatchShape(1, 512), BatchShape(1, 128), BatchShape(2, 64), BatchShape(1, 16)]
    assert CostTable(dict.fromkeys(shapes, 0.1)).shapes == (
        BatchShape(1, 16),
        BatchShape(1, 128),
        BatchShape(2, 64),
        BatchShape(4, 32),
        BatchShape(1, 512),
    )


def test_table_keeps_its_timings() -> None:
    timings = {ONE_ROW: 0.001}
    table = CostTable(timings)
    timings[ONE_ROW] = 1.0
    assert table.seconds(ONE_ROW) == 0.001


def test_a_shape_that_was_not_timed_has_no_seconds() -> None:
    with pytest.raises(KeyError):
        CostTable({ONE_ROW: 0.001}).seconds(BatchShape(2, 16))


@pytest.mark.parametrize(
    "timings",
    [
        {},
        {BatchShape(2, 16): 0.1},
        {ONE_ROW: 0.0},
        {ONE_ROW: -1.0},
        {ONE_ROW: math.nan},
        {ONE_ROW: 0.1, BatchShape(2, 16): 0.0},
    ],
)
def test_table_needs_a_single_row_and_positive_times(timings: dict[BatchShape, float]) -> None:
    with pytest.raises(ValueError, match=f"timings must have .* got {len(timings)} timings"):
        CostTable(timings)


@given(st.floats(1e-3, 1e3), st.floats(1e-4, 10))
def test_correction_finds_a_lasting_factor_and_stays_there(slower: float, predicted_s: float) -> None:
    correction = DriftCorrection()
    for _ in range(200):
        correction.observe(predicted_s, predicted_s * slower)
    assert correction.factor == pytest.approx(slower, rel=1e-3)


@given(st.lists(st.tuples(st.floats(1e-4, 10), st.floats(0.25, 4)), min_size=1, max_size=50))
def test_correction_stays_within_the_measured_range(batches: list[tuple[float, float]]) -> None:
    correction = DriftCorrection()
    for predicted_s, ratio in batches:
        correction.observe(predicted_s, predicted_s * ratio)
    seen = [1.0, *(ratio for _, ratio in batches)]
    assert min(seen) * (1 - 1e-9) <= correction.factor <= max(seen) * (1 + 1e-9)


@given(st.floats(0, 1e9))
def test_one_batch_moves_the_correction_a_little(measured_s: float) -> None:
    correction = DriftCorrection()
    correction.observe(1.0, measured_s)
    assert 1 / MAX_STEP <= correction.factor <= MAX_STEP


def test_no_prediction_corrects_nothing() -> None:
    correction = DriftCorrection()
    correction.observe(0.0, 1.0)
    assert correction.factor == 1.0
