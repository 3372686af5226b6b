"""Spans by OpenTelemetry, sent by OTLP over gRPC.

Where to, how many and under which name is said by OpenTelemetry's own variables: `OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`. Spans of queue, batch and compute are made when a batch has ended, with the
times that the batcher noted, so that tracing takes nothing of the time that it measures.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, TraceFlags, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.span import format_span_id, format_trace_id

from electra_serve.observability.tracing import NO_CARRIER, BatchTimes, Carrier, Outcome, RequestSpan, Waited

TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,256})?")
TRACESTATE: Final = re.compile(r"[a-z0-9@_*/-]{1,256}=[ -~]{1,256}(,[a-z0-9@_*/-]{1,256}=[!-~]{1,256}){0,31}")
INSTRUMENTATION: Final = "electra-serve"
MAX_LINKS: Final = 128
"""OpenTelemetry's own default: of a larger batch the first so many are linked."""


class OtelRequestSpan:
    """One request's span; `electra_serve.observability.tracing.RequestSpan`."""

    __slots__ = ("span",)

    def __init__(self, span: Span) -> None:
        self.span = span

    @property
    def traceresponse(self) -> str:
        """Trace and span, in the form of `traceparent`."""
        context = self.span.get_span_context()
        sampled = context.trace_flags & TraceFlags.SAMPLED
        return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{sampled:02x}"

    def end(self, outcome: Outcome) -> None:
        """Ends the span."""
        if self.span.is_recording():
            self.span.set_attributes(
                {
                    "electra.model": outcome.model,
                    "electra.code": outcome.code,
                    "electra.sequences": outcome.sequences,
                    "electra.tokens": outcome.tokens,
                }
            )
            if outcome.code != "ok":
                self.span.set_attribute("error.type", outcome.code)
            if outcome.fault:
                self.span.set_status(StatusCode.ERROR)
        self.span.end()


class OtelTracer:
    """Makes spans; `electra_serve.observability.tracing.Tracer`.

    Args:
        version: The service's, for the spans' resource.
        processor: Takes the spans that have ended.
        loop_time: The clock that batches are timed by, in seconds.
    """

    def __init__(self, version: str, processor: SpanProcessor, loop_time: Callable[[], float]) -> None:
        # What the variables say comes last, and wins.
        named = Resource({SERVICE_NAME: INSTRUMENTATION, SERVICE_VERSION: version})
        self._provider = TracerProvider(
            resource=Resource.create().merge(named).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(INSTRUMENTATION, version)
        self._loop_time = loop_time
        # W3C's own and no other: those for baggage write what is wrong with a header into the log, with its text.
        self._authenticator = TraceContextTextMapPropagator()

    def request(self, transport: str, method: str, carrier: Carrier) -> OtelRequestSpan:
        """Begins a request's span, as a child of the one that `carrier` names, if it names one."""
        return OtelRequestSpan(
            self._tracer.start_span(
                method,
                self._authenticator.extract(_sound(carrier)),
                kind=SpanKind.SERVER,
                attributes={"electra.transport": transport},
            )
        )

    def batch(self, times: BatchTimes, attributes: Mapping[str, str | int], waited: Sequence[Waited]) -> None:
        """Makes a batch's spans, where one of its requests is sampled; in the trace of the most urgent of those."""
        sampled = {span: row.admitted_at for row in waited if (span := _sampled(row.span)) is not None}
        if not sampled:
            return
        epoch_s = time.time() - self._loop_time()

        def at(seconds: float) -> int:
            return int((epoch_s + seconds) * 1e9)

        links = [Link(span.get_span_context()) for span in list(sampled)[:MAX_LINKS]]
        first = set_span_in_context(next(iter(sampled)))
        batch = self._tracer.start_span("batch", first, attributes=attributes, links=links, start_time=at(times.chosen))
        inside = set_span_in_context(batch)
        self._tracer.start_span("compute", inside, start_time=at(times.started)).end(at(times.ended))
        batch.end(at(times.ended))
        for span, admitted_at in sampled.items():
            queue = self._tracer.start_span(
                "queue", set_span_in_context(span), links=[Link(batch.get_span_context())], start_time=at(admitted_at)
            )
            queue.end(at(times.chosen))

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


def _sound(carrier: Carrier) -> Carrier:
    """The caller's span, as far as it is named as it should be: OpenTelemetry logs what it finds wrong."""
    parent, state = carrier.get("traceparent"), carrier.get("tracestate")
    if not isinstance(parent, str) or not TRACEPARENT.fullmatch(parent):
        return NO_CARRIER
    sound = isinstance(state, str) and TRACESTATE.fullmatch(state) is not None
    return {"traceparent": parent, "tracestate": str(state)} if sound else {"traceparent": parent}


def _sampled(request: RequestSpan) -> Span | None:
    span = request.span if isinstance(request, OtelRequestSpan) else None
    return span if span is not None and span.get_span_context().trace_flags.sampled else None


def otlp_tracer(version: str, loop_time: Callable[[], float]) -> OtelTracer:
    """The tracer that sends by OTLP, from a thread of its own."""
    return OtelTracer(version, BatchSpanProcessor(OTLPSpanExporter()), loop_time)
