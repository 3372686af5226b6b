"""EncodeStream over a real socket: order, errors that do not end it, back-pressure, leaving and draining."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc
import pytest

from electra_serve.api.grpc.call import Call, Context
from electra_serve.api.grpc.render import Parts
from electra_serve.api.grpc.servicer import SERVICE_NAME
from electra_serve.api.grpc.stream import EncodeStream
from electra_serve.errors import Cancelled, Overloaded
from electra_serve.observability.requests import RequestRecord
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.serving.encode import EncodeRequest
from electra_serve.serving.request_context import Priority
from electra_serve.serving.transit_budget import Reservation
from tests.fake_service import rows_of
from tests.fakes import transit_budget
from tests.unit.api.grpc.conftest import Running, codec, observer, transfer
from tests.unit.api.grpc.messages import UNKNOWN_FIELD, item
from tests.waiting import until

BOUNDS: Any = {"max_requests": 3}


class Gates:
    """Holds each request until the gate of its first id is opened."""

    def __init__(self, *ids: int) -> None:
        self._gates = {i: asyncio.Event() for i in ids}

    async def __call__(self, request: EncodeRequest) -> None:
        await self._gates[rows_of(request)[0][0]].wait()

    def open(self, first_id: int) -> None:
        self._gates[first_id].set()


async def read(stream: grpc.aio.StreamStreamCall[Any, pb.EncodeStreamResponse]) -> pb.EncodeStreamResponse:
    """Returns the next response, within 5 s."""
    async with asyncio.timeout(5):
        response = await stream.read()
    assert isinstance(response, pb.EncodeStreamResponse)
    return response


async def test_responses_come_in_the_order_they_finish(running: Running) -> None:
    running.service.before = gates = Gates(1, 2)
    stream = running.stub.EncodeStream()
    await stream.write(item("a", [1]))
    await stream.write(item("b", [2]))
    await until(lambda: len(running.service.requests) == 2)
    gates.open(2)
    first = await read(stream)
    gates.open(1)
    second = await read(stream)
    await stream.done_writing()
    assert [first.request_id, second.request_id] == ["b", "a"]
    assert [first.response.request_id, second.response.request_id] == ["b", "a"]
    assert (first.response.usage.tokens, first.WhichOneof("result")) == (1, "response")
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_all_read_requests_get_a_response_after_the_client_half_closes(running: Running) -> None:
    running.service.before = gates = Gates(1)
    stream = running.stub.EncodeStream()
    await stream.write(item("a", [1]))
    await stream.done_writing()
    await until(lambda: len(running.service.requests) == 1)
    gates.open(1)
    assert (await read(stream)).request_id == "a"


BAD_ITEMS = {
    "no message": (b"\x0a\xff", "", "malformed_request"),
    "unknown field": (UNKNOWN_FIELD, "", "malformed_request"),
    "unknown field of the request": (
        pb.EncodeStreamRequest(request=pb.EncodeRequest.FromString(UNKNOWN_FIELD)).SerializeToString(),
        "",
        "malformed_request",
    ),
    "no id": (item("", [1]).SerializeToString(), "", "malformed_request"),
    "an id too long": (item("a" * 129, [1]).SerializeToString(), "", "malformed_request"),
    "nothing at all": (b"", "", "malformed_request"),
    "no input": (
        pb.EncodeStreamRequest(request=pb.EncodeRequest(request_id="a")).SerializeToString(),
        "a",
        "malformed_request",
    ),
    "too many rows": (item("a", *[[1]] * 9).SerializeToString(), "a", "payload_too_large"),
}


@pytest.mark.parametrize(("data", "request_id", "slug"), BAD_ITEMS.values(), ids=BAD_ITEMS)
async def test_a_bad_request_does_not_end_the_stream(running: Running, data: bytes, request_id: str, slug: str) -> None:
    method: grpc.aio.StreamStreamMultiCallable[bytes, pb.EncodeStreamResponse] = running.channel.stream_stream(
        f"/{SERVICE_NAME}/EncodeStream", response_deserializer=pb.EncodeStreamResponse.FromString
    )
    stream = method()
    await stream.write(data)
    rejected = await read(stream)
    await stream.write(item("good", [1]).SerializeToString())
    succeeded = await read(stream)
    assert (rejected.WhichOneof("result"), rejected.request_id, rejected.error.code) == ("error", request_id, slug)
    assert succeeded.response.request_id == "good"


async def test_each_request_is_counted_by_itself(running: Running) -> None:
    stream = running.stub.EncodeStream()
    await stream.write(item("a", [1], [2]))
    await read(stream)
    await stream.write(item("", [1]))
    await read(stream)
    assert (running.count("ok"), running.count("malformed_request", model="")) == (1, 1)
    entries = running.log.entries
    assert [entry["method"] for entry in entries] == ["EncodeStream"] * 2
    assert (entries[0]["request_id"], entries[0]["sequences"], entries[0]["tokens"]) == ("a", 2, 2)
    await until(lambda: running.in_flight() == 0)


async def test_an_error_of_the_service_has_its_retry_delay(running: Running) -> None:
    async def full(_: EncodeRequest) -> None:
        raise Overloaded("full", retry_after_s=1.5)

    running.service.before = full
    stream = running.stub.EncodeStream()
    await stream.write(item("a", [1]))
    error = (await read(stream)).error
    assert (error.code, error.message, error.retry_after.ToMilliseconds()) == ("overloaded", "full", 1500)


async def test_a_response_over_the_limit_does_not_end_the_stream(running: Running) -> None:
    stream = running.stub.EncodeStream()
    await stream.write(item("a", [1] * 600))
    assert (await read(stream)).error.code == "payload_too_large"
    await stream.write(item("b", [1]))
    assert (await read(stream)).request_id == "b"


async def test_an_id_in_flight_is_rejected_and_free_after_its_response(running: Running) -> None:
    running.service.before = gates = Gates(1)
    stream = running.stub.EncodeStream()
    await stream.write(item("a", [1]))
    await until(lambda: len(running.service.requests) == 1)
    await stream.write(item("a", [1]))
    rejected = await read(stream)
    assert (rejected.request_id, rejected.error.code, rejected.error.field) == ("", "malformed_request", "request_id")
    assert rejected.error.message == "`request_id` must differ from those in flight; got a again"
    gates.open(1)
    assert (await read(stream)).request_id == "a"
    await stream.write(item("a", [1]))
    assert (await read(stream)).WhichOneof("result") == "response"


async def test_metadata_of_the_call_holds_for_each_request(running: Running) -> None:
    stream = running.stub.EncodeStream(metadata=(("x-priority", "low"),), timeout=30)
    await stream.write(item("a", [1]))
    await read(stream)
    [seen] = running.service.requests
    assert (seen.context.priority, seen.context.client) == (Priority.LOW, "127.0.0.1")
    assert seen.context.timeout_s is not None


async def test_no_more_requests_are_read_than_may_be_worked_on(running: Running) -> None:
    running.service.before = gates = Gates(1, 2, 3)
    stream = running.stub.EncodeStream()
    for first_id in (1, 2, 3):
        await stream.write(item(f"r{first_id}", [first_id]))
    await until(lambda: len(running.service.requests) == 2)
    for _ in range(5):  # served after the third request has arrived, on the same connection
        await running.stub.ListModels(pb.ListModelsRequest())
    assert len(running.service.requests) == 2
    gates.open(1)
    await until(lambda: len(running.service.requests) == 3)
    gates.open(2)
    gates.open(3)
    assert {(await read(stream)).request_id for _ in range(3)} == {"r1", "r2", "r3"}


async def respond_at_once(
    message: pb.EncodeRequest, size: int, record: RequestRecord, reservation: Reservation
) -> Parts:
    return [pb.EncodeResponse(request_id=message.request_id).SerializeToString()]


async def test_a_caller_that_does_not_read_is_aborted_and_what_it_holds_let_go() -> None:
    held = [asyncio.Event() for _ in range(3)]

    async def encode(message: pb.EncodeRequest, size: int, record: RequestRecord, reservation: Reservation) -> Parts:
        try:
            if message.request_id != "r0":
                await asyncio.Event().wait()
        finally:
            held[int(message.request_id[1:])].set()
        return await respond_at_once(message, size, record, reservation)

    async def never(_: bytes) -> None:
        await asyncio.Event().wait()

    stream = EncodeStream(encode, observer(), call(never), codec(), transfer(send_timeout_s=0.01), **BOUNDS)
    with pytest.raises(Cancelled, match=r"did not read its response within 0\.01 s"):
        await stream.run(transit_budget().reserve("a", 1))
    assert all(event.is_set() for event in held)


class FakeContext:
    """The part of gRPC's context that a stream uses: three requests arrive."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        self.write = write
        self._messages = [item(f"r{i}", [i]).SerializeToString() for i in range(3)]

    async def read(self) -> object:
        return self._messages.pop(0) if self._messages else grpc.aio.EOF

    def peer(self) -> str:
        return "unix:"


def call(write: Callable[[bytes], Awaitable[None]]) -> Call:
    """A call whose writes the test controls."""
    return Call(cast("Context", FakeContext(write)), {}, "a", None)


class OneAtATime:
    """Takes one write at a time, as gRPC's does, and is slow at it."""

    def __init__(self) -> None:
        self.busy = False
        self.written = 0

    async def write(self, message: bytes) -> None:
        assert not self.busy
        self.busy = True
        await asyncio.sleep(0)
        self.busy = False
        self.written += 1


async def test_responses_are_written_one_at_a_time() -> None:
    writer = OneAtATime()
    stream = EncodeStream(respond_at_once, observer(), call(writer.write), codec(), transfer(), **BOUNDS)
    assert await stream.run(transit_budget().reserve("a", 1))
    assert writer.written == 3


async def test_a_caller_who_leaves_cancels_all_its_requests(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    running.service.before = Gates(1, 2)
    stream = running.stub.EncodeStream()
    await stream.write(item("a", [1]))
    await stream.write(item("b", [2]))
    await until(lambda: len(running.service.requests) == 2)
    stream.cancel()
    await until(lambda: running.service.cancelled == 2)
    await running.stub.ListModels(pb.ListModelsRequest())
    assert running.count("cancelled") == 2
    await until(lambda: running.in_flight() == 0)
    assert caplog.records == []


async def test_a_draining_server_finishes_read_requests_and_ends_the_stream(running: Running) -> None:
    running.service.before = gates = Gates(1)
    stream = running.stub.EncodeStream()
    await stream.write(item("a", [1]))
    await until(lambda: len(running.service.requests) == 1)
    stopping = asyncio.create_task(running.server.stop(30))
    await asyncio.sleep(0)
    gates.open(1)
    assert (await read(stream)).request_id == "a"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(caught.value.trailing_metadata())["electra-error-code"] == "shutting_down"
    async with asyncio.timeout(5):
        await stopping
