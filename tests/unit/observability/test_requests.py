"""Each request is counted and logged once, whatever becomes of it."""

from __future__ import annotations

import asyncio
import weakref

import pytest
import structlog
from structlog.testing import CapturingLogger

from electra_serve.errors import InternalError, InvalidInput
from electra_serve.observability.metrics import CODES, TRANSPORTS, Metrics
from electra_serve.observability.requests import RequestObserver


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics("test")
    made.create_model_series("m")
    return made


@pytest.fixture
def written() -> CapturingLogger:
    return CapturingLogger()


@pytest.fixture
def observer(metrics: Metrics, written: CapturingLogger) -> RequestObserver:
    log = structlog.wrap_logger(written, processors=[lambda _, __, event: event])
    return RequestObserver("rest", metrics, log)


def count(metrics: Metrics, code: str, model: str = "m") -> float | None:
    return metrics.registry.get_sample_value(
        "electra_requests_total", {"model": model, "transport": "rest", "code": code}
    )


def test_every_series_exists_before_the_first_request(metrics: Metrics) -> None:
    for transport in TRANSPORTS:
        for code in CODES:
            for model in ("", "m"):
                labels = {"model": model, "transport": transport, "code": code}
                assert metrics.registry.get_sample_value("electra_requests_total", labels) == 0


def test_success(observer: RequestObserver, metrics: Metrics, written: CapturingLogger) -> None:
    with observer.request("encode", "id-1") as record:
        record.model, record.sequences, record.tokens = "m", 2, 30
        assert metrics.registry.get_sample_value("electra_requests_in_flight", {"transport": "rest"}) == 1
    assert count(metrics, "ok") == 1
    assert metrics.registry.get_sample_value("electra_requests_in_flight", {"transport": "rest"}) == 0
    [line] = written.calls
    assert {"request_id": "id-1", "code": "ok", "sequences": 2, "tokens": 30}.items() <= line.kwargs.items()


def test_a_service_error_passes_and_is_counted_by_its_code(observer: RequestObserver, metrics: Metrics) -> None:
    with pytest.raises(InvalidInput), observer.request("encode", "id-1"):
        raise InvalidInput("no")
    assert count(metrics, "invalid_input", model="") == 1
    assert count(metrics, "ok", model="") == 0


def test_a_cancelled_request_is_counted_and_stays_cancelled(observer: RequestObserver, metrics: Metrics) -> None:
    with pytest.raises(asyncio.CancelledError), observer.request("encode", "id-1"):
        raise asyncio.CancelledError
    assert count(metrics, "cancelled", model="") == 1


def test_a_surprise_becomes_an_internal_error_without_its_text(
    observer: RequestObserver, metrics: Metrics, written: CapturingLogger
) -> None:
    with pytest.raises(InternalError) as failure, observer.request("encode", "id-1"):
        raise KeyError("secret")
    assert "secret" not in failure.value.message
    assert "id-1" in failure.value.message
    assert count(metrics, "internal", model="") == 1
    assert [call.method_name for call in written.calls] == ["error", "info"]


def test_request_lines_can_be_turned_off(metrics: Metrics, written: CapturingLogger) -> None:
    quiet = RequestObserver("rest", metrics, structlog.wrap_logger(written), log_requests=False)
    with quiet.request("encode", "id-1"):
        pass
    assert written.calls == []
    assert count(metrics, "ok", model="") == 1


def test_the_error_of_a_rejected_request_keeps_none_of_its_bytes(observer: RequestObserver) -> None:
    class Body:
        """Something that can be watched."""

    refs: list[weakref.ref[Body]] = []

    def decode() -> None:
        body = Body()
        refs.append(weakref.ref(body))
        raise InvalidInput("no")

    with pytest.raises(InvalidInput), observer.request("encode", "id-1"):
        decode()
    assert refs[0]() is None
