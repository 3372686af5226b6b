"""The spans of requests and batches, as an exporter gets them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from opentelemetry.trace.span import format_span_id, format_trace_id

from electra_serve.observability.opentelemetry import OtelTracer
from electra_serve.observability.tracing import BatchTimes, Outcome, Waited

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
OK = Outcome(model="m", code="ok", fault=False, sequences=1, tokens=3)
TIMES = BatchTimes(chosen=2.0, started=3.0, ended=5.0)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Iterator[OtelTracer]:
    made = OtelTracer("1.2", SimpleSpanProcessor(exporter), lambda: 10.0)
    yield made
    made.close()


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def links_of(span: ReadableSpan) -> list[str]:
    return [format_span_id(link.context.span_id) for link in span.links]


def id_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return format_span_id(context.span_id)


def test_a_request_is_a_child_of_its_callers_span(tracer: OtelTracer, exporter: InMemorySpanExporter) -> None:
    request = tracer.request("rest", "POST /v1/encode", SAMPLED)
    request.end(OK)
    (span,) = exporter.get_finished_spans()
    assert span.parent is not None
    assert (format_trace_id(span.parent.trace_id), format_span_id(span.parent.span_id)) == (TRACE, CALLER)
    assert request.traceresponse == f"00-{TRACE}-{id_of(span)}-01"
    assert span.attributes == {
        "electra.transport": "rest", "electra.model": "m", "electra.code": "ok", "electra.sequences": 1,
        "electra.tokens": 3,
    }  # fmt: skip


@pytest.mark.parametrize("carrier", [{}, {"traceparent": "nonsense"}, {"traceparent": SAMPLED["traceparent"].upper()}])
def test_a_request_without_a_caller_begins_a_trace(
    tracer: OtelTracer, exporter: InMemorySpanExporter, carrier: dict[str, str]
) -> None:
    tracer.request("grpc", "Encode", carrier).end(OK)
    (span,) = exporter.get_finished_spans()
    assert span.parent is None


@pytest.mark.parametrize(
    ("code", "fault", "status"), [("overloaded", False, StatusCode.UNSET), ("internal", True, StatusCode.ERROR)]
)
def test_only_faults_of_ours_are_errors(
    tracer: OtelTracer, exporter: InMemorySpanExporter, code: str, fault: bool, status: StatusCode
) -> None:
    tracer.request("rest", "POST /v1/encode", {}).end(Outcome("m", code, fault, 0, 0))
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is status
    assert span.attributes is not None
    assert span.attributes["error.type"] == code


def test_a_batch_is_linked_to_its_requests_and_each_wait_to_its_batch(
    tracer: OtelTracer, exporter: InMemorySpanExporter
) -> None:
    first, second = (tracer.request("rest", "POST /v1/encode", {}) for _ in range(2))
    waited = [Waited(first, 0.5), Waited(first, 0.5), Waited(second, 1.0)]
    tracer.batch(TIMES, {"electra.model": "m"}, waited)
    first.end(OK)
    second.end(OK)

    (batch,) = named(exporter, "batch")
    (compute,) = named(exporter, "compute")
    queues = named(exporter, "queue")
    requests = named(exporter, "POST /v1/encode")
    assert links_of(batch) == [id_of(span) for span in requests]
    assert batch.parent is not None
    assert format_span_id(batch.parent.span_id) == id_of(requests[0])
    assert compute.parent is not None
    assert format_span_id(compute.parent.span_id) == id_of(batch)
    assert [links_of(queue) for queue in queues] == [[id_of(batch)]] * 2


def test_a_batchs_spans_have_the_times_it_had(tracer: OtelTracer, exporter: InMemorySpanExporter) -> None:
    tracer.batch(TIMES, {}, [Waited(tracer.request("rest", "POST /v1/encode", {}), 0.5)])
    took = {span.name: (span.end_time or 0) - (span.start_time or 0) for span in exporter.get_finished_spans()}
    assert took == pytest.approx({"compute": 2e9, "batch": 3e9, "queue": 1.5e9}, abs=2)


def test_a_batch_of_requests_that_are_not_sampled_makes_no_spans(
    tracer: OtelTracer, exporter: InMemorySpanExporter
) -> None:
    request = tracer.request("rest", "POST /v1/encode", NOT_SAMPLED)
    tracer.batch(TIMES, {}, [Waited(request, 0.5)])
    request.end(OK)
    assert exporter.get_finished_spans() == ()
    assert request.traceresponse.startswith(f"00-{TRACE}-")
    assert request.traceresponse.endswith("-00")


def test_the_service_is_named(tracer: OtelTracer, exporter: InMemorySpanExporter) -> None:
    tracer.request("rest", "POST /v1/encode", {}).end(OK)
    (span,) = exporter.get_finished_spans()
    assert span.resource.attributes["service.name"] == "electra-serve"
    assert span.resource.attributes["service.version"] == "1.2"


def test_the_services_name_is_the_variables_where_they_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    exporter = InMemorySpanExporter()
    tracer = OtelTracer("1.2", SimpleSpanProcessor(exporter), lambda: 0.0)
    tracer.request("rest", "POST /v1/encode", {}).end(OK)
    (span,) = exporter.get_finished_spans()
    assert span.resource.attributes["service.name"] == "mine"
    tracer.close()


@pytest.mark.parametrize(
    "header", [{"baggage": "no member"}, {"tracestate": "no member"}, {"tracestate": ",".join(["a=b"] * 40)}]
)
def test_no_text_of_a_callers_is_written_to_the_log(
    tracer: OtelTracer, header: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    tracer.request("rest", "POST /v1/encode", {**SAMPLED, **header}).end(OK)
    assert caplog.records == []


def test_the_state_of_a_callers_trace_goes_with_its_spans(tracer: OtelTracer, exporter: InMemorySpanExporter) -> None:
    tracer.request("rest", "POST /v1/encode", {**SAMPLED, "tracestate": "vendor=1,other=2"}).end(OK)
    (span,) = exporter.get_finished_spans()
    context = span.get_span_context()
    assert context is not None
    assert dict(context.trace_state) == {"vendor": "1", "other": "2"}
