"""Spans of a batch: links, times, attributes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from opentelemetry.trace import INVALID_SPAN, Span

from electra_serve.batching.clock import LoopClock
from electra_serve.batching.pending import PendingRequest, PendingRow
from electra_serve.batching.tracing import MAX_LINKS, trace_batch
from electra_serve.tensors import Output
from tests.fakes import encoding, in_flight_batch
from tests.unit.spans import RecordedSpans, id_of, links_of, parent_of


@pytest.fixture
def spans() -> RecordedSpans:
    return RecordedSpans()


def row_of(request: PendingRequest, admitted_at: float = 0.5) -> PendingRow:
    row = PendingRow(
        request=request, index=0, encoding=encoding(1), length=1, work_s=0.0, client="", priority=1, deadline=None
    )
    row.admitted_at = admitted_at
    return row


def request_of(span: Span | None) -> PendingRequest:
    return PendingRequest(1, frozenset({Output.MEAN}), span)


def trace(spans: RecordedSpans, rows: list[PendingRow]) -> None:
    record = replace(in_flight_batch().record(), sequences=7, chosen_at=2.0, started_at=3.0, ended_at=5.0)
    trace_batch(spans.tracer, LoopClock(), "m", record, rows)


async def test_a_batch_is_linked_to_its_requests_and_each_wait_to_its_batch(spans: RecordedSpans) -> None:
    first, second = (spans.tracer.start_span("request") for _ in range(2))
    both = request_of(first)
    trace(spans, [row_of(both), row_of(both), row_of(request_of(second), 1.0)])
    (batch,), (compute,), queues = (spans.named(name) for name in ("batch", "compute", "queue"))
    assert links_of(batch) == [id_of(first), id_of(second)]
    assert parent_of(batch) == id_of(first)
    assert parent_of(compute) == id_of(batch)
    assert [parent_of(queue) for queue in queues] == [id_of(first), id_of(second)]
    assert [links_of(queue) for queue in queues] == [[id_of(batch)]] * 2


async def test_spans_have_the_times_of_their_batch(spans: RecordedSpans) -> None:
    trace(spans, [row_of(request_of(spans.tracer.start_span("request")))])
    durations = {span.name: (span.end_time or 0) - (span.start_time or 0) for span in spans.all}
    assert durations == pytest.approx({"compute": 2e9, "batch": 3e9, "queue": 1.5e9}, abs=1e3)


async def test_a_span_has_the_sequences_and_the_shape_of_its_batch(spans: RecordedSpans) -> None:
    trace(spans, [row_of(request_of(spans.tracer.start_span("request")))])
    (batch,) = spans.named("batch")
    assert batch.attributes == {
        "electra.model": "m", "electra.outcome": "running", "electra.sequences": 7, "electra.rows": 2,
        "electra.length": 64, "electra.real_tokens": 11,
    }  # fmt: skip


@pytest.mark.parametrize("span", [None, INVALID_SPAN])
async def test_a_batch_of_requests_that_are_not_sampled_makes_no_spans(spans: RecordedSpans, span: Span | None) -> None:
    trace(spans, [row_of(request_of(span))])
    assert spans.all == ()


async def test_a_batch_that_did_not_run_makes_no_spans(spans: RecordedSpans) -> None:
    row = row_of(request_of(spans.tracer.start_span("request")))
    trace_batch(spans.tracer, LoopClock(), "m", replace(in_flight_batch().record(), started_at=None), [row])
    assert spans.all == ()


async def test_the_links_of_a_large_batch_are_limited(spans: RecordedSpans) -> None:
    trace(spans, [row_of(request_of(spans.tracer.start_span("request"))) for _ in range(MAX_LINKS + 1)])
    (batch,) = spans.named("batch")
    assert len(batch.links) == MAX_LINKS
    assert len(spans.named("queue")) == MAX_LINKS + 1
