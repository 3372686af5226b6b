"""Spans of a batch, made once it has ended from the times in its record, so that they cost the batch no time.

A batch is linked to each of its requests, and is a child of the most urgent one: see docs/decisions/0014-spans.md.
"""

from __future__ import annotations

import time
from typing import Final

from opentelemetry.trace import Link, Span, Tracer, set_span_in_context

from electra_serve.batching.clock import Clock
from electra_serve.batching.flight_recorder import BatchRecord
from electra_serve.batching.pending import PendingRows

MAX_LINKS: Final = 128  # OpenTelemetry's default limit; of a larger batch, only the most urgent requests are linked


def trace_batch(tracer: Tracer, clock: Clock, model: str, record: BatchRecord, rows: PendingRows) -> None:
    """Makes the spans of a batch, if it ran and one of its requests is sampled."""
    if record.started_at is None or record.ended_at is None:
        return
    admitted_at = {span: row.admitted_at for row in rows if (span := row.request.span) is not None and _sampled(span)}
    if not admitted_at:
        return
    epoch_s = time.time() - clock.now()

    def at(seconds: float) -> int:
        return int((epoch_s + seconds) * 1e9)

    batch = tracer.start_span(
        "batch",
        set_span_in_context(next(iter(admitted_at))),
        attributes=_attributes(model, record),
        links=[Link(span.get_span_context()) for span in list(admitted_at)[:MAX_LINKS]],
        start_time=at(record.chosen_at),
    )
    compute = tracer.start_span("compute", set_span_in_context(batch), start_time=at(record.started_at))
    compute.end(at(record.ended_at))
    batch.end(at(record.ended_at))
    link = Link(batch.get_span_context())
    for span, admitted in admitted_at.items():
        queue = tracer.start_span("queue", set_span_in_context(span), links=[link], start_time=at(admitted))
        queue.end(at(record.chosen_at))


def _attributes(model: str, record: BatchRecord) -> dict[str, str | int]:
    return {
        "electra.model": model,
        "electra.outcome": record.outcome.value,
        "electra.sequences": record.sequences,
        "electra.rows": record.rows,
        "electra.length": record.length,
        "electra.real_tokens": record.real_tokens,
    }


def _sampled(span: Span) -> bool:
    return span.get_span_context().trace_flags.sampled
