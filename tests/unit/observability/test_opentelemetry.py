"""Finished spans carry the service's name."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from electra_serve.observability.opentelemetry import tracing_by


@pytest.mark.parametrize(("variable", "name"), [(None, "electra-serve"), ("mine", "mine")])
def test_the_service_is_named_unless_the_variable_names_it(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, name: str
) -> None:
    if variable is not None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", variable)
    exporter = InMemorySpanExporter()
    tracing = tracing_by(SimpleSpanProcessor(exporter), "1.2")
    assert tracing.tracer is not None
    tracing.tracer.start_span("any").end()
    (span,) = exporter.get_finished_spans()
    assert span.resource.attributes["service.name"] == name
    assert span.resource.attributes["service.version"] == "1.2"
    assert tracing.close is not None
    tracing.close()
