"""The cost model finds what made the timings, and never a negative factor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.batching.cost_model import MOST_STEP, CostModel, DriftCorrection, fit
from electra_serve.tensors import BatchShape

SHAPES = [BatchShape(rows, length) for rows in (1, 4, 16) for length in (8, 32, 128, 512)]

factors = st.tuples(st.floats(1e-5, 1e-1), st.floats(1e-7, 1e-3), st.floats(1e-10, 1e-5))


@given(factors)
def test_fit_recovers_the_factors_behind_exact_timings(true: tuple[float, float, float]) -> None:
    model = CostModel(*true)
    found = fit([(shape, model.seconds(shape.rows, shape.length)) for shape in SHAPES])
    for shape in SHAPES:
        assert found.seconds(shape.rows, shape.length) == pytest.approx(
            model.seconds(shape.rows, shape.length), rel=1e-3
        )


@given(st.lists(st.tuples(st.sampled_from(SHAPES), st.floats(1e-6, 10)), min_size=1, max_size=12))
def test_no_factor_is_negative_whatever_was_timed(timings: list[tuple[BatchShape, float]]) -> None:
    found = fit(timings)
    assert min(found.batch_s, found.position_s, found.pair_s) >= 0
    assert found.seconds(1, 1) > 0 or found.seconds(16, 512) > 0


def test_one_timing_is_explained_exactly() -> None:
    assert fit([(BatchShape(4, 32), 0.5)]).seconds(4, 32) == pytest.approx(0.5)


@pytest.mark.parametrize("timings", [[], [(BatchShape(1, 1), 0.0)], [(BatchShape(1, 1), float("nan"))]])
def test_timings_must_be_positive(timings: list[tuple[BatchShape, float]]) -> None:
    with pytest.raises(ValueError, match="above 0 seconds"):
        fit(timings)


@given(st.floats(1e-3, 1e3), st.floats(1e-4, 10))
def test_correction_finds_a_lasting_factor_and_stays_there(slower: float, predicted_s: float) -> None:
    correction = DriftCorrection()
    for _ in range(200):
        correction.observe(predicted_s, predicted_s * slower)
    assert correction.factor == pytest.approx(slower, rel=1e-3)


@given(st.lists(st.tuples(st.floats(1e-4, 10), st.floats(0.25, 4)), min_size=1, max_size=50))
def test_correction_stays_within_what_was_seen(batches: list[tuple[float, float]]) -> None:
    correction = DriftCorrection()
    for predicted_s, ratio in batches:
        correction.observe(predicted_s, predicted_s * ratio)
    seen = [1.0, *(ratio for _, ratio in batches)]
    assert min(seen) * (1 - 1e-9) <= correction.factor <= max(seen) * (1 + 1e-9)


@given(st.floats(0, 1e9))
def test_one_batch_moves_the_correction_a_little(measured_s: float) -> None:
    correction = DriftCorrection()
    correction.observe(1.0, measured_s)
    assert 1 / MOST_STEP <= correction.factor <= MOST_STEP


def test_no_prediction_corrects_nothing() -> None:
    correction = DriftCorrection()
    correction.observe(0.0, 1.0)
    assert correction.factor == 1.0
