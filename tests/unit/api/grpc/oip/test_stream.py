"""ModelStreamInfer over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
import numpy as np
import pytest

from electra_serve.errors import Overloaded
from electra_serve.proto.electra.v1 import encoder_pb2
from electra_serve.proto.inference import open_inference_grpc_pb2 as pb
from electra_serve.serving.request_context import Priority
from tests.unit.api.grpc.conftest import Running
from tests.unit.api.grpc.oip.conftest import SERVICE, ids
from tests.unit.api.grpc.test_servicer import failing
from tests.unit.api.grpc.test_stream import Gates
from tests.waiting import until

Stream: TypeAlias = "grpc.aio.StreamStreamCall[pb.ModelInferRequest, pb.ModelStreamInferResponse]"


@pytest.fixture
async def stream(serving: Running) -> AsyncIterator[Stream]:
    opened = open_stream(serving)
    yield opened
    opened.cancel()


def open_stream(running: Running, **options: Any) -> Stream:
    method: grpc.aio.StreamStreamMultiCallable[pb.ModelInferRequest, pb.ModelStreamInferResponse] = (
        running.channel.stream_stream(
            f"{SERVICE}/ModelStreamInfer",
            pb.ModelInferRequest.SerializeToString,
            pb.ModelStreamInferResponse.FromString,
        )
    )
    return method(**options)


async def read(stream: Stream) -> pb.ModelStreamInferResponse:
    """Returns the next response, within 5 s."""
    async with asyncio.timeout(5):
        response = await stream.read()
    assert isinstance(response, pb.ModelStreamInferResponse)
    return response


async def test_responses_come_in_the_order_they_finish(serving: Running, stream: Stream) -> None:
    serving.service.before = gates = Gates(1, 2)
    await stream.write(ids([1], id="a"))
    await stream.write(ids([2], id="b"))
    await until(lambda: len(serving.service.requests) == 2)
    gates.open(2)
    first = await read(stream)
    gates.open(1)
    second = await read(stream)
    await stream.done_writing()
    assert [first.infer_response.id, second.infer_response.id] == ["b", "a"]
    assert np.frombuffer(first.infer_response.raw_output_contents[0], "<f4").tolist() == [2.0] * 4
    assert first.error_message == ""
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_ids_may_repeat_or_be_empty(serving: Running, stream: Stream) -> None:
    serving.service.before = gates = Gates(1, 2)
    for first_id in (1, 2):
        await stream.write(ids([first_id], id="same"))
    await until(lambda: len(serving.service.requests) == 2)
    gates.open(1)
    gates.open(2)
    assert [(await read(stream)).infer_response.id for _ in range(2)] == ["same", "same"]
    serving.service.before = lambda _: asyncio.sleep(0)
    await stream.write(ids([3]))
    assert (await read(stream)).infer_response.id == ""


BAD: dict[str, tuple[pb.ModelInferRequest, str, str]] = {
    "no inputs": (pb.ModelInferRequest(model_name="tiny", id="a"), "invalid_input", "inputs"),
    "an unknown model": (pb.ModelInferRequest(model_name="none", id="a"), "model_not_found", "model"),
    "too many rows": (ids(*[[1]] * 9, id="a"), "payload_too_large", "token_ids"),
}


@pytest.mark.parametrize(("request_", "code", "field"), BAD.values(), ids=BAD)
async def test_a_bad_request_does_not_end_the_stream(
    stream: Stream, request_: pb.ModelInferRequest, code: str, field: str
) -> None:
    await stream.write(request_)
    rejected = await read(stream)
    await stream.write(ids([1], id="good"))
    succeeded = await read(stream)
    parameters = {name: value.string_param for name, value in rejected.infer_response.parameters.items()}
    assert rejected.error_message
    assert rejected.infer_response.id == "a"
    assert (parameters["electra-error-code"], parameters["electra-error-field"]) == (code, field)
    assert parameters["x-request-id"] == "a"
    assert (succeeded.error_message, succeeded.infer_response.id) == ("", "good")


async def test_a_broken_message_does_not_end_the_stream(serving: Running) -> None:
    method: grpc.aio.StreamStreamMultiCallable[bytes, pb.ModelStreamInferResponse] = serving.channel.stream_stream(
        f"{SERVICE}/ModelStreamInfer", response_deserializer=pb.ModelStreamInferResponse.FromString
    )
    stream = method()
    await stream.write(b"\x0a\xff")
    rejected = await stream.read()
    await stream.write(ids([1]).SerializeToString())
    succeeded = await stream.read()
    stream.cancel()
    assert isinstance(rejected, pb.ModelStreamInferResponse)
    assert isinstance(succeeded, pb.ModelStreamInferResponse)
    assert "must be a valid inference.ModelInferRequest" in rejected.error_message
    assert succeeded.error_message == ""


async def test_errors_have_their_retry_delay_and_internal_ones_their_id(serving: Running, stream: Stream) -> None:
    serving.service.before = failing(Overloaded("full", retry_after_s=1.5))
    await stream.write(ids([1], id="r1"))
    rejected = await read(stream)
    assert rejected.error_message == "full"
    assert rejected.infer_response.parameters["grpc-retry-pushback-ms"].string_param == "1500"
    serving.service.before = failing(RuntimeError("the weights are at /secret"))
    await stream.write(ids([1], id="r2"))
    failed = await read(stream)
    assert failed.error_message == "the server failed on this request; its log has the rest under request id r2"
    assert failed.infer_response.model_name == "tiny"


async def test_a_response_over_the_limit_does_not_end_the_stream(stream: Stream) -> None:
    await stream.write(ids([1] * 600, outputs=["sequence_output"]))
    assert "request fewer sequences or outputs" in (await read(stream)).error_message
    await stream.write(ids([1], id="b"))
    assert (await read(stream)).infer_response.id == "b"


@pytest.mark.parametrize(
    ("value", "final"), [({"bool_param": True}, True), ({"bool_param": False}, False), ({"int64_param": 1}, False)]
)
async def test_each_response_is_final_for_clients_that_ask(stream: Stream, value: dict[str, Any], final: bool) -> None:
    asked = {"triton_enable_empty_final_response": pb.InferParameter(**value)}
    await stream.write(ids([1], parameters=asked))
    parameters = (await read(stream)).infer_response.parameters
    assert {name: value.bool_param for name, value in parameters.items()} == (
        {"triton_final_response": True} if final else {}
    )


async def test_a_typed_request_gets_a_typed_response(stream: Stream) -> None:
    request = ids([1, 2])
    del request.raw_input_contents[:]
    request.inputs[0].contents.int_contents.extend([1, 2])
    await stream.write(request)
    response = (await read(stream)).infer_response
    assert list(response.outputs[0].contents.fp32_contents) == [1.5] * 4
    assert not response.raw_output_contents


async def test_metadata_of_the_call_holds_for_each_request(serving: Running) -> None:
    stream = open_stream(serving, metadata=(("x-priority", "low"),), timeout=30)
    await stream.write(ids([1]))
    await read(stream)
    stream.cancel()
    [seen] = serving.service.requests
    assert seen.context.priority is Priority.LOW
    assert seen.context.timeout_s is not None


async def test_no_more_requests_are_read_than_may_be_worked_on(serving: Running, stream: Stream) -> None:
    serving.service.before = gates = Gates(1, 2, 3)
    for first_id in (1, 2, 3):
        await stream.write(ids([first_id], id=str(first_id)))
    await until(lambda: len(serving.service.requests) == 2)
    for _ in range(5):  # served after the third request has arrived, on the same connection
        await serving.stub.ListModels(encoder_pb2.ListModelsRequest())
    assert len(serving.service.requests) == 2
    for first_id in (1, 2, 3):
        gates.open(first_id)
    assert {(await read(stream)).infer_response.id for _ in range(3)} == {"1", "2", "3"}


async def test_a_client_that_leaves_cancels_all_its_requests(
    serving: Running, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    serving.service.before = Gates(1, 2)
    for first_id in (1, 2):
        await stream.write(ids([first_id]))
    await until(lambda: len(serving.service.requests) == 2)
    stream.cancel()
    await until(lambda: serving.service.cancelled == 2)
    await until(lambda: serving.count("cancelled", transport="oip_grpc") == 2)
    await until(lambda: serving.in_flight("oip_grpc") == 0)
    assert caplog.records == []


async def test_a_draining_server_finishes_read_requests_and_ends_the_stream(serving: Running, stream: Stream) -> None:
    serving.service.before = gates = Gates(1)
    await stream.write(ids([1], id="a"))
    await until(lambda: len(serving.service.requests) == 1)
    stopping = asyncio.create_task(serving.server.stop(30))
    await asyncio.sleep(0)
    gates.open(1)
    assert (await read(stream)).infer_response.id == "a"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(caught.value.trailing_metadata())["electra-error-code"] == "shutting_down"
    async with asyncio.timeout(5):
        await stopping
