"""Spans of real requests, as a collector gets them from the real process."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Final

import grpc
import httpx
import numpy as np
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from electra_serve.proto.tensors import from_integers
from tests.integration.collector import Collector, collecting
from tests.integration.process import ServiceProcess, start
from tests.waiting import wait_until

REST_TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
GRPC_TRACE: Final = "1af7651916cd43dd8448eb211c80319c"
STREAM_TRACE: Final = "2af7651916cd43dd8448eb211c80319c"
CALLER: Final = "b7ad6b7169203331"
METHODS: Final = {REST_TRACE: "POST /v1/encode", GRPC_TRACE: "Encode", STREAM_TRACE: "EncodeStream"}


def test_a_request_is_traced_from_its_caller_to_the_engine(tmp_path: Path) -> None:
    with collecting() as (collector, port):
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with start(tmp_path, "--tracing.enabled=true", "--log.format=json", environment=environment) as process:
            process.wait_ready()
            named = {REST_TRACE: ask_rest(process), GRPC_TRACE: ask_grpc(process)}
            ask_in_stream(process)
            process.terminate()
            assert process.wait() == 0
            assert process.complaints == []
        for trace, method in METHODS.items():
            assert_whole(collector, trace, method)
        for trace, traceresponse in named.items():
            [request] = collector.named(METHODS[trace], trace)
            assert traceresponse == f"00-{trace}-{request.span_id.hex()}-01"


def test_a_collector_that_is_not_there_stops_nothing(tmp_path: Path) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    with start(tmp_path, "--tracing.enabled=true", "--log.format=json", environment=environment) as process:
        process.wait_ready()
        ask_rest(process)
        process.terminate()
        assert process.wait(20) == 0


def assert_whole(collector: Collector, trace: str, method: str) -> None:
    """Fails unless a trace has its request, queue, batch and compute spans, each below its parent."""
    wait_until(lambda: len(collector.named("compute", trace)) == 1)
    [request] = collector.named(method, trace)
    [queue], [batch], [compute] = (collector.named(name, trace) for name in ("queue", "batch", "compute"))
    assert request.parent_span_id.hex() == CALLER
    assert queue.parent_span_id == batch.parent_span_id == request.span_id
    assert compute.parent_span_id == batch.span_id
    assert [link.span_id for link in batch.links] == [request.span_id]
    assert [link.span_id for link in queue.links] == [batch.span_id]
    assert_in_order(request, queue, batch, compute)


def assert_in_order(request: Span, queue: Span, batch: Span, compute: Span) -> None:
    times = [
        request.start_time_unix_nano, queue.start_time_unix_nano, queue.end_time_unix_nano,
        compute.start_time_unix_nano, compute.end_time_unix_nano,
    ]  # fmt: skip
    slack_ns = 2_000_000  # between the clock of the loop and that of the day
    assert all(later - earlier > -slack_ns for earlier, later in itertools.pairwise(times))
    assert abs(queue.end_time_unix_nano - batch.start_time_unix_nano) < slack_ns


def ask_rest(process: ServiceProcess) -> str:
    """Encodes one text, and returns the span that the response names."""
    headers = {"traceparent": f"00-{REST_TRACE}-{CALLER}-01"}
    response = httpx.post(
        f"{process.url}/v1/encode", json={"text": "Hello", "outputs": ["mean_output"]}, headers=headers
    )
    assert response.status_code == 200
    return response.headers["traceresponse"]


def ask_grpc(process: ServiceProcess) -> str:
    """The same over gRPC."""
    with grpc.insecure_channel(process.target) as channel:
        metadata = (("traceparent", f"00-{GRPC_TRACE}-{CALLER}-01"),)
        _, call = EncoderServiceStub(channel).Encode.with_call(ids(), metadata=metadata)
        return str(dict(call.trailing_metadata())["traceresponse"])


def ask_in_stream(process: ServiceProcess) -> None:
    """The same in a stream."""
    with grpc.insecure_channel(process.target) as channel:
        metadata = (("traceparent", f"00-{STREAM_TRACE}-{CALLER}-01"),)
        request = ids()
        request.request_id = "one"
        requests = iter([pb.EncodeStreamRequest(request=request)])
        [response] = EncoderServiceStub(channel).EncodeStream(requests, metadata=metadata)
        assert response.WhichOneof("result") == "response"


def ids() -> pb.EncodeRequest:
    tokens = pb.TokenInput(token_ids=[from_integers(np.array([2, 5, 3], np.int32))])
    return pb.EncodeRequest(tokens=tokens, outputs=[pb.OUTPUT_MEAN])
