"""Sends spans by OTLP over gRPC, with OpenTelemetry's SDK, which the extra `tracing` installs.

OpenTelemetry's own variables say where to, how many and under which name: `OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from electra_serve.observability.tracing import Tracing

INSTRUMENTATION: Final = "electra-serve"


def tracing_by(processor: SpanProcessor, version: str) -> Tracing:
    """Returns a tracer whose finished spans go to `processor`; `version` is that of the service."""
    named = Resource({SERVICE_NAME: INSTRUMENTATION, SERVICE_VERSION: version})
    # The variables come last and take precedence.
    resource = Resource.create().merge(named).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return Tracing(provider.get_tracer(INSTRUMENTATION, version), provider.shutdown)


def otlp_tracing(version: str) -> Tracing:
    """Returns a tracer whose spans a separate thread sends by OTLP."""
    return tracing_by(BatchSpanProcessor(OTLPSpanExporter()), version)
