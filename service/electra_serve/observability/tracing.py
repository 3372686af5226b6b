"""Spans of requests, by OpenTelemetry's API; `electra_serve.batching.tracing` adds those of batches.

    request       from arrival to response, child of the client's span
    ├ queue       from admission to the planning of its batch, linked to that batch
    └ batch       from its planning to its end, linked to every request in it
      └ compute   the engine

Without tracing there is no tracer, and requests have no span. See docs/decisions/0014-spans.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from opentelemetry.trace import Span, SpanKind, StatusCode, TraceFlags, Tracer, format_span_id, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

# Header or metadata of a response that names its span (W3C Trace Context, level 2)
TRACE_RESPONSE_KEY: Final = "traceresponse"

# Headers or metadata of a client, by lower-case name: `traceparent` and `tracestate` name its span
Carrier: TypeAlias = Mapping[str, str | bytes]
NO_CARRIER: Final[Carrier] = MappingProxyType({})

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,256})?")
_TRACESTATE: Final = re.compile(r"[a-z0-9@_*/-]{1,256}=[ -~]{1,256}(,[a-z0-9@_*/-]{1,256}=[!-~]{1,256}){0,31}")
# Only W3C's propagator: the one for baggage logs an invalid header with its text.
_PROPAGATOR: Final = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class Tracing:
    """Tracer of the process, and the call that sends its remaining spans within seconds; both None without tracing."""

    tracer: Tracer | None = None
    close: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """End of a request, as its span shows it; `fault` is True if the service is at fault, not the client."""

    model: str
    code: str
    fault: bool
    sequences: int
    tokens: int


def start_request_span(tracer: Tracer, transport: str, method: str, carrier: Carrier) -> Span:
    """Starts a request's span, as a child of the client's if the carrier names one."""
    parent = _PROPAGATOR.extract(_valid(carrier))
    return tracer.start_span(method, parent, kind=SpanKind.SERVER, attributes={"electra.transport": transport})


def end_request_span(span: Span, outcome: Outcome) -> None:
    """Ends a request's span; only a fault of the service is an error."""
    if span.is_recording():
        span.set_attributes(
            {
                "electra.model": outcome.model,
                "electra.code": outcome.code,
                "electra.sequences": outcome.sequences,
                "electra.tokens": outcome.tokens,
            }
        )
        if outcome.code != "ok":
            span.set_attribute("error.type", outcome.code)
        if outcome.fault:
            span.set_status(StatusCode.ERROR)
    span.end()


def traceresponse(span: Span) -> str:
    """Returns trace and span in the form of `traceparent`."""
    context = span.get_span_context()
    flags = context.trace_flags & TraceFlags.SAMPLED
    return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{flags:02x}"


def _valid(carrier: Carrier) -> Carrier:
    """Returns the valid headers, since OpenTelemetry logs the invalid ones."""
    parent, state = carrier.get("traceparent"), carrier.get("tracestate")
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
        return NO_CARRIER
    if not isinstance(state, str) or not _TRACESTATE.fullmatch(state):
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}
