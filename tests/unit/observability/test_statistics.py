"""Totals of one model are those of its metrics, whatever other models do."""

from __future__ import annotations

import pytest

from electra_serve.observability.metrics import TRANSPORTS, Metrics
from electra_serve.observability.statistics import Duration, ModelStatistics, read_statistics

NOTHING = Duration(0, 0)


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics("test")
    for model in ("one", "other"):
        metrics.create_model_series(model)
    return metrics


def run_batch(metrics: Metrics, model: str, sequences: int) -> None:
    batches = metrics.batches(model)
    batches.sequences.observe(sequences)
    batches.compute_s.observe(0.5)
    for _ in range(sequences):
        batches.queue_wait_s.observe(0.25)


def test_a_new_model_has_zeros(metrics: Metrics) -> None:
    assert read_statistics(metrics, "one") == ModelStatistics("one", 0, 0, NOTHING, NOTHING, NOTHING, NOTHING)


def test_sequences_batches_and_their_times_are_summed(metrics: Metrics) -> None:
    run_batch(metrics, "one", 3)
    run_batch(metrics, "one", 5)
    run_batch(metrics, "other", 100)
    found = read_statistics(metrics, "one")
    assert (found.sequences, found.batches) == (8, 2)
    assert (found.queue, found.compute) == (Duration(8, 2_000_000_000), Duration(2, 1_000_000_000))


def test_requests_of_every_transport_count(metrics: Metrics) -> None:
    for transport in TRANSPORTS:
        metrics.observe_request(transport=transport, model="one", code="ok", seconds=0.25)
        metrics.observe_request(transport=transport, model="one", code="overloaded", seconds=0.25)
    metrics.observe_request(transport="rest", model="one", code="invalid_input", seconds=0.5)
    metrics.observe_request(transport="rest", model="other", code="ok", seconds=60)
    metrics.observe_request(transport="rest", model="", code="model_not_found", seconds=60)
    found = read_statistics(metrics, "one")
    assert found.success == Duration(len(TRANSPORTS), 2_500_000_000)
    assert found.fail == Duration(len(TRANSPORTS) + 1, 0)


def test_a_model_that_comes_back_starts_at_zero(metrics: Metrics) -> None:
    run_batch(metrics, "one", 3)
    metrics.remove_model_series("one")
    metrics.create_model_series("one")
    assert read_statistics(metrics, "one").sequences == 0


@pytest.mark.parametrize("name", ["one\nother", 'one"', "one\\", "ones", "on"])
def test_names_are_compared_as_they_are(name: str) -> None:
    metrics = Metrics("test")
    for model in ("one", name):
        metrics.create_model_series(model)
    run_batch(metrics, name, 3)
    assert (read_statistics(metrics, name).sequences, read_statistics(metrics, "one").sequences) == (3, 0)
