"""Totals of one model since it was loaded, read from the metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import Counter, Histogram

from electra_serve.observability.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Duration:
    """Number of events, and their total time."""

    count: int
    ns: int


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """Totals of a model: sequences and batches, and the time of its requests.

    The metrics have one time for all requests, so `success` includes the time of failed ones, and `fail` has none.
    """

    name: str
    sequences: int
    batches: int
    success: Duration
    fail: Duration
    queue: Duration  # wait of each sequence
    compute: Duration  # of each batch in an engine


def read_statistics(metrics: Metrics, model: str) -> ModelStatistics:
    """Reads the totals of a model, which must have series."""
    sequences, batches = _histogram(metrics.batch_sequences, model)
    queue_s, queued = _histogram(metrics.queue_wait, model)
    compute_s, computed = _histogram(metrics.compute, model)
    request_s, _ = _histogram(metrics.request_seconds, model)
    completed = list(_requests(metrics.requests, model))
    return ModelStatistics(
        name=model,
        sequences=round(sequences),
        batches=batches,
        success=Duration(round(sum(count for code, count in completed if code == "ok")), round(request_s * 1e9)),
        fail=Duration(round(sum(count for code, count in completed if code != "ok")), 0),
        queue=Duration(queued, round(queue_s * 1e9)),
        compute=Duration(computed, round(compute_s * 1e9)),
    )


def _histogram(histogram: Histogram, model: str) -> tuple[float, int]:
    """Returns the sum and the number of a model's observations."""
    total, count = 0.0, 0.0
    for metric in histogram.collect():
        for sample in metric.samples:
            if sample.labels.get("model") != model:
                continue
            total += sample.value if sample.name.endswith("_sum") else 0.0
            count += sample.value if sample.name.endswith("_count") else 0.0
    return total, round(count)


def _requests(counter: Counter, model: str) -> Iterable[tuple[str, float]]:
    """Yields the code and the number of a model's requests."""
    for metric in counter.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total") and sample.labels.get("model") == model:
                yield sample.labels["code"], sample.value
