"""The span of a batch has its size and outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from electra_serve.batching.pending import PendingRequest, PendingRow
from electra_serve.batching.tracing import trace_batch
from electra_serve.observability.tracing import BatchTimes, Carrier, Outcome, RequestSpan, Waited
from electra_serve.tensors import Output
from tests.fakes import encoding, in_flight_batch


class Span:
    traceresponse = ""

    def end(self, outcome: Outcome) -> None:
        """Does nothing."""


class RecordingTracer:
    """Keeps the attributes of batches."""

    def __init__(self) -> None:
        self.attributes: list[Mapping[str, str | int]] = []

    def request(self, transport: str, method: str, carrier: Carrier) -> RequestSpan:
        return Span()

    def batch(self, times: BatchTimes, attributes: Mapping[str, str | int], waited: Sequence[Waited]) -> None:
        self.attributes.append(attributes)

    def close(self) -> None:
        """Does nothing."""


async def test_a_span_has_the_sequences_and_the_shape_of_its_batch() -> None:
    tracer = RecordingTracer()
    record = replace(in_flight_batch().record(), sequences=7, started_at=3.0, ended_at=4.0)
    request = PendingRequest(1, frozenset({Output.MEAN}), Span())
    row = PendingRow(
        request=request, index=0, encoding=encoding(1), length=1, work_s=0.0, client="", priority=1, deadline=None
    )
    trace_batch(tracer, "m", record, [row])
    (shown,) = tracer.attributes
    assert {name: shown[f"electra.{name}"] for name in ("sequences", "rows", "length", "real_tokens")} == {
        "sequences": 7, "rows": 2, "length": 64, "real_tokens": 11,
    }  # fmt: skip
