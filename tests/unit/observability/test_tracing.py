"""Spans of requests: parent, attributes and status."""

from __future__ import annotations

import pytest
from opentelemetry.trace import StatusCode, format_trace_id

from electra_serve.observability.tracing import Carrier, Outcome, end_request_span, start_request_span, traceresponse
from tests.unit.spans import RecordedSpans, id_of, parent_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
OK = Outcome(model="m", code="ok", fault=False, sequences=1, tokens=3)


@pytest.fixture
def spans() -> RecordedSpans:
    return RecordedSpans()


def trace_request(spans: RecordedSpans, carrier: Carrier, outcome: Outcome = OK) -> str:
    """Starts and ends a span; returns its name in the response."""
    span = start_request_span(spans.tracer, "rest", "POST /v1/encode", carrier)
    end_request_span(span, outcome)
    return traceresponse(span)


def test_a_request_is_a_child_of_its_clients_span(spans: RecordedSpans) -> None:
    response = trace_request(spans, SAMPLED)
    (span,) = spans.all
    assert span.parent is not None
    assert format_trace_id(span.parent.trace_id) == TRACE
    assert parent_of(span) == CALLER
    assert response == f"00-{TRACE}-{id_of(span)}-01"
    assert span.attributes == {
        "electra.transport": "rest", "electra.model": "m", "electra.code": "ok", "electra.sequences": 1,
        "electra.tokens": 3,
    }  # fmt: skip


@pytest.mark.parametrize("carrier", [{}, {"traceparent": "nonsense"}, {"traceparent": SAMPLED["traceparent"].upper()}])
def test_a_request_without_a_clients_span_starts_a_trace(spans: RecordedSpans, carrier: dict[str, str]) -> None:
    trace_request(spans, carrier)
    (span,) = spans.all
    assert span.parent is None


@pytest.mark.parametrize(
    ("code", "fault", "status"), [("overloaded", False, StatusCode.UNSET), ("internal", True, StatusCode.ERROR)]
)
def test_only_faults_of_the_service_are_errors(
    spans: RecordedSpans, code: str, fault: bool, status: StatusCode
) -> None:
    trace_request(spans, {}, Outcome("m", code, fault, 0, 0))
    (span,) = spans.all
    assert span.status.status_code is status
    assert span.attributes is not None
    assert span.attributes["error.type"] == code


def test_a_request_that_is_not_sampled_makes_no_span(spans: RecordedSpans) -> None:
    response = trace_request(spans, NOT_SAMPLED)
    assert spans.all == ()
    assert response.startswith(f"00-{TRACE}-")
    assert response.endswith("-00")


@pytest.mark.parametrize(
    "header", [{"baggage": "no member"}, {"tracestate": "no member"}, {"tracestate": ",".join(["a=b"] * 40)}]
)
def test_the_log_has_no_text_of_a_client(
    spans: RecordedSpans, header: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    trace_request(spans, {**SAMPLED, **header})
    assert caplog.records == []


def test_spans_keep_the_state_of_the_clients_trace(spans: RecordedSpans) -> None:
    trace_request(spans, {**SAMPLED, "tracestate": "vendor=1,other=2"})
    (span,) = spans.all
    context = span.get_span_context()
    assert context is not None
    assert dict(context.trace_state) == {"vendor": "1", "other": "2"}
