"""The unary methods over a real socket: responses, errors, metadata, and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import numpy as np
import pytest

from electra_serve import errors
from electra_serve.api.grpc.servicer import SERVICE_NAME, EncoderServicer
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.tensors import to_floats
from electra_serve.serving.encode import EncodeRequest
from electra_serve.serving.request_context import Priority
from electra_serve.tensors import DEFAULT_OUTPUTS, Output, TextInput, Truncation
from tests.fake_service import FakeService
from tests.unit.api.grpc.conftest import Running, codec, observer, transfer
from tests.unit.api.grpc.messages import UNKNOWN_FIELD, request
from tests.waiting import until


async def failure(call: Awaitable[object]) -> tuple[grpc.StatusCode, str, dict[str, str | bytes]]:
    """Failure of a call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or "", dict(caught.value.trailing_metadata())


def failing(error: Exception) -> Callable[[EncodeRequest], Awaitable[object]]:
    """A script for the fake service."""

    async def before(_: EncodeRequest) -> None:
        raise error

    return before


async def test_every_method_of_the_proto_is_served() -> None:
    servicer = EncoderServicer(
        FakeService(), observer(), codec=codec(), max_stream_requests=1, max_answer_bytes=1, transfer=transfer()
    )
    proto = pb.DESCRIPTOR.services_by_name["EncoderService"]
    assert SERVICE_NAME == proto.full_name == "electra.v1.EncoderService"
    methods = servicer.methods()
    assert set(methods) == {method.name for method in proto.methods}
    # Handlers must run before a message is received.
    assert all(handler.request_streaming for handler in methods.values())


async def test_encode_returns_outputs(running: Running) -> None:
    response = await running.stub.Encode(request([1, 2], [3]))
    assert [to_floats(tensor).tolist() for tensor in response.sequence_output] == [[[1.0] * 4, [2.0] * 4], [[3.0] * 4]]
    np.testing.assert_array_equal(to_floats(response.pooled_output), [[1.0] * 4, [3.0] * 4])
    assert not response.HasField("cls_output")
    assert not response.HasField("mean_output")
    assert (response.model, response.usage.sequences, response.usage.tokens) == ("tiny", 2, 3)


async def test_what_the_caller_says_reaches_the_service(running: Running) -> None:
    message = pb.EncodeRequest(
        model="tiny", text=pb.TextInput(texts=[pb.Text(first="a")]), outputs=[pb.OUTPUT_MEAN], truncate=True
    )
    await running.stub.Encode(message, timeout=30, metadata=(("x-priority", "high"),))
    [seen] = running.service.requests
    assert seen.input == TextInput(("a",))
    assert (seen.model, seen.outputs, seen.truncation) == ("tiny", frozenset({Output.MEAN}), Truncation.LONGEST_FIRST)
    assert (seen.context.client, seen.context.priority) == ("127.0.0.1", Priority.HIGH)
    assert seen.context.timeout_s is not None
    assert 20 < seen.context.timeout_s <= 31


@pytest.mark.parametrize(
    ("own", "envoys", "least", "most"),
    [(None, "5000", 1, 5), (30, "5000", 1, 5), (5, "30000", 1, 6), (30, "soon", 9, 31)],
)
async def test_the_lesser_of_the_deadline_and_the_proxys_timeout_holds(
    running: Running, own: float | None, envoys: str, least: float, most: float
) -> None:
    await running.stub.Encode(request([1]), timeout=own, metadata=(("x-envoy-expected-rq-timeout-ms", envoys),))
    assert running.service.requests[0].context.timeout_s is not None
    assert least <= running.service.requests[0].context.timeout_s <= most


async def test_a_call_is_rejected_unread_where_there_is_no_room(running: Running) -> None:
    running.service.full = errors.Overloaded("full", retry_after_s=0.25)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.raw("/electra.v1.EncoderService/Encode", b"\xff")
    assert dict(caught.value.trailing_metadata())["electra-error-code"] == "overloaded"
    assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "250"


async def test_what_the_caller_leaves_out_has_its_default(running: Running) -> None:
    await running.stub.Encode(request([1]))
    [seen] = running.service.requests
    assert (seen.model, seen.outputs, seen.truncation) == (None, DEFAULT_OUTPUTS, Truncation.NONE)
    assert (seen.context.priority, seen.context.timeout_s) == (Priority.NORMAL, None)


@pytest.mark.parametrize(
    ("field", "metadata", "expected"),
    [("mine", "other", "mine"), ("", "other", "other"), ("not plain", "other", "other")],
)
async def test_a_request_has_its_own_id_in_response_metadata_and_log(
    running: Running, field: str, metadata: str, expected: str
) -> None:
    call = running.stub.Encode(request([1], request_id=field), metadata=(("x-request-id", metadata),))
    response = await call
    assert response.request_id == expected
    assert dict(await call.trailing_metadata())["x-request-id"] == expected
    assert [entry["request_id"] for entry in running.log.entries] == [expected]


async def test_a_request_without_an_id_gets_one(running: Running) -> None:
    first, second = await asyncio.gather(running.stub.Encode(request([1])), running.stub.Encode(request([1])))
    assert len(first.request_id) == 32
    assert first.request_id != second.request_id


async def test_requests_are_counted_and_logged_under_their_model(running: Running) -> None:
    await running.stub.Encode(pb.EncodeRequest(model="tiny", tokens=request([1, 2], [3]).tokens))
    assert running.count("ok") == 1
    [entry] = running.log.entries
    assert (entry["method"], entry["model"], entry["sequences"], entry["tokens"]) == ("Encode", "tiny", 2, 3)


@pytest.mark.parametrize("error", [kind("told") for kind in errors.ServiceError.__subclasses__()], ids=lambda e: e.code)
async def test_an_error_of_the_service_ends_the_call_with_its_slug(
    running: Running, error: errors.ServiceError
) -> None:
    running.service.before = failing(error)
    _, text, metadata = await failure(running.stub.Encode(request([1]), metadata=(("x-request-id", "r1"),)))
    assert metadata["electra-error-code"] == error.code
    assert metadata["x-request-id"] == "r1"
    assert text == "told" or error.code in {"internal", "engine_failure"}
    assert running.count(error.code) == 1
    await until(lambda: running.in_flight() == 0)


async def test_an_unexpected_exception_keeps_its_text_to_the_log(running: Running) -> None:
    running.service.before = failing(RuntimeError("the weights are at /secret"))
    status, text, metadata = await failure(running.stub.Encode(request([1], request_id="r1")))
    assert status is grpc.StatusCode.INTERNAL
    assert text == "the server failed on this request; its log has the rest under request id r1"
    assert metadata["electra-error-code"] == "internal"
    assert "/secret" not in str(metadata)
    assert running.log.entries[0]["request_id"] == "r1"
    assert running.log.entries[0]["exc_info"]


BAD_REQUESTS = {
    "no message": (b"\x0a\xff", "malformed_request"),
    "not UTF-8": (b"\x0a\x02\xff\xfe", "malformed_request"),
    "unknown field": (UNKNOWN_FIELD, "malformed_request"),
    "no input": (b"", "malformed_request"),
    "bytes that do not match their shape": (
        pb.EncodeRequest(
            tokens=pb.TokenInput(token_ids=[pb.Tensor(dtype=pb.DATA_TYPE_INT32, shape=[2], data=b"1234")])
        ).SerializeToString(),
        "invalid_input",
    ),
    "unknown output": (request([1], outputs=[99]).SerializeToString(), "invalid_input"),  # type: ignore[list-item]
    "too many rows": (request(*[[1]] * 9).SerializeToString(), "payload_too_large"),
}


@pytest.mark.parametrize(("data", "slug"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
async def test_a_bad_request_never_reaches_the_service(running: Running, data: bytes, slug: str) -> None:
    call = running.raw(f"/{SERVICE_NAME}/Encode", data)
    status, _, metadata = await failure(call)
    assert status in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert metadata["electra-error-code"] == slug
    assert running.service.requests == []
    assert running.count(slug) == 1


async def test_an_unknown_priority_is_malformed(running: Running) -> None:
    status, text, metadata = await failure(running.stub.Encode(request([1]), metadata=(("x-priority", "urgent"),)))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert text == "x-priority must be one of high, normal, low; got another value"
    assert metadata["electra-error-field"] == "x-priority"


async def test_an_overloaded_service_says_when_to_try_again(running: Running) -> None:
    running.service.before = failing(errors.Overloaded("full", retry_after_s=0.25))
    status, _, metadata = await failure(running.stub.Encode(request([1])))
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert metadata["grpc-retry-pushback-ms"] == "250"


async def test_a_response_over_the_limit_is_rejected_with_advice(running: Running) -> None:
    status, text, metadata = await failure(running.stub.Encode(request([1] * 600)))
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert metadata["electra-error-code"] == "payload_too_large"
    assert "request fewer sequences or outputs" in text
    assert running.count("payload_too_large") == 1


async def test_a_caller_who_leaves_cancels_its_request(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    never = asyncio.Event()
    running.service.before = lambda _: never.wait()
    call = running.stub.Encode(request([1]))
    await until(lambda: len(running.service.requests) == 1)
    assert running.in_flight() == 1
    call.cancel()
    await until(lambda: running.service.cancelled == 1)
    await running.stub.ListModels(pb.ListModelsRequest())
    assert running.count("cancelled") == 1
    await until(lambda: running.in_flight() == 0)
    assert caplog.records == []


async def test_a_deadline_that_passes_cancels_its_request(running: Running) -> None:
    never = asyncio.Event()
    running.service.before = lambda _: never.wait()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.Encode(request([1]), timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: running.service.cancelled == 1)


async def test_models_are_listed_in_order(running: Running) -> None:
    response = await running.stub.ListModels(pb.ListModelsRequest())
    assert [(model.name, model.state) for model in response.models] == [
        ("tiny", pb.MODEL_STATE_READY),
        ("big", pb.MODEL_STATE_LOADING),
    ]


async def test_one_model_is_described(running: Running) -> None:
    response = await running.stub.GetModel(pb.GetModelRequest(name="tiny"))
    assert response.model.config.hidden_dim == 4
    status, _, metadata = await failure(running.stub.GetModel(pb.GetModelRequest(name="none")))
    assert status is grpc.StatusCode.NOT_FOUND
    assert metadata["electra-error-code"] == "model_not_found"


@pytest.mark.parametrize("method", ["Encode", "Classify", "ListModels", "GetModel"])
async def test_every_method_rejects_what_it_does_not_know(running: Running, method: str) -> None:
    status, _, metadata = await failure(running.raw(f"/{SERVICE_NAME}/{method}", UNKNOWN_FIELD))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert metadata["electra-error-code"] == "malformed_request"
