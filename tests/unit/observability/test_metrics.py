"""The series of models come and go with them."""

from __future__ import annotations

from electra_serve.observability.metrics import Metrics


def models_seen(metrics: Metrics) -> dict[str, set[str]]:
    """For each instrument the models that it has series of."""
    return {
        family.name: {sample.labels["model"] for sample in family.samples if "model" in sample.labels}
        for family in metrics.registry.collect()
    }


def count(metrics: Metrics, model: str) -> None:
    metrics.observe_request(transport="rest", model=model, code="ok", seconds=0.1)


def counted(metrics: Metrics, model: str) -> float | None:
    labels = {"model": model, "transport": "rest", "code": "ok"}
    return metrics.registry.get_sample_value("electra_requests_total", labels)


def test_dropped_log_lines_are_read_at_each_scrape() -> None:
    dropped = iter((0, 3))
    metrics = Metrics("test", lambda: next(dropped))
    assert b"electra_log_lines_dropped_total 0.0" in metrics.exposition()[0]
    assert b"electra_log_lines_dropped_total 3.0" in metrics.exposition()[0]


def test_a_model_that_goes_leaves_no_series() -> None:
    metrics = Metrics("test")
    before = models_seen(metrics)
    metrics.create_model_series("stays")
    metrics.create_model_series("goes")
    with_both = models_seen(metrics)
    count(metrics, "goes")
    metrics.remove_model_series("goes")
    after = models_seen(metrics)
    labeled = {name for name, models in with_both.items() if "goes" in models}
    assert len(labeled) >= 16
    assert not any("goes" in models for models in after.values())
    assert all("stays" in after[name] for name in labeled)
    metrics.remove_model_series("stays")
    assert models_seen(metrics) == before


def test_what_is_counted_of_a_model_that_has_gone_goes_to_no_model() -> None:
    metrics = Metrics("test")
    metrics.create_model_series("one")
    count(metrics, "one")
    metrics.remove_model_series("one")
    count(metrics, "one")
    assert (counted(metrics, "one"), counted(metrics, "")) == (None, 1)


def test_a_model_that_comes_back_starts_at_zero() -> None:
    metrics = Metrics("test")
    metrics.create_model_series("one")
    count(metrics, "one")
    metrics.remove_model_series("one")
    metrics.create_model_series("one")
    assert counted(metrics, "one") == 0
    count(metrics, "one")
    assert counted(metrics, "one") == 1


def test_series_that_exist_stay_as_they_are() -> None:
    metrics = Metrics("test")
    metrics.create_model_series("one")
    count(metrics, "one")
    metrics.create_model_series("one")
    assert counted(metrics, "one") == 1
