"""Tells a tracer of the batches whose requests are traced."""

from __future__ import annotations

from electra_serve.batching.flight_recorder import BatchRecord
from electra_serve.batching.pending import PendingRows
from electra_serve.observability.tracing import BatchTimes, Tracer, Waited


def trace_batch(tracer: Tracer, model: str, record: BatchRecord, rows: PendingRows) -> None:
    """Has a batch's spans made, if it ran.

    Args:
        tracer: Makes them.
        model: The model's name.
        record: What became of the batch.
        rows: Its rows.
    """
    if record.started_at is None or record.ended_at is None:
        return
    waited = [Waited(row.request.span, row.admitted_at) for row in rows if row.request.span is not None]
    if waited:
        tracer.batch(
            BatchTimes(record.chosen_at, record.started_at, record.ended_at),
            {
                "electra.model": model,
                "electra.outcome": record.outcome.value,
                "electra.sequences": record.sequences,
                "electra.rows": record.rows,
                "electra.length": record.length,
                "electra.real_tokens": record.real_tokens,
            },
            waited,
        )
