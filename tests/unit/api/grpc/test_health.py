"""grpc.health.v1 over a real socket."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import grpc
import pytest
from grpc_health.v1 import health_pb2

from electra_serve.api.grpc.health import NAME
from electra_serve.api.grpc.server import MAX_OPEN_RECEIVED
from electra_serve.api.grpc.stream_slots import MAX_PER_CONNECTION
from electra_serve.settings.schema import GrpcSettings
from tests.unit.api.grpc.conftest import SETTINGS, Running
from tests.unit.api.grpc.open_calls import never, nothing, open_call

Request: TypeAlias = health_pb2.HealthCheckRequest
Response: TypeAlias = health_pb2.HealthCheckResponse


def check(running: Running, service: str) -> grpc.aio.UnaryUnaryCall[Request, Response]:
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response] = running.channel.unary_unary(
        "/grpc.health.v1.Health/Check", Request.SerializeToString, Response.FromString
    )
    return method(Request(service=service))


def watch(running: Running, service: str) -> grpc.aio.UnaryStreamCall[Request, Response]:
    method: grpc.aio.UnaryStreamMultiCallable[Request, Response] = running.channel.unary_stream(
        "/grpc.health.v1.Health/Watch", Request.SerializeToString, Response.FromString
    )
    return method(Request(service=service))


async def next_status(watching: grpc.aio.UnaryStreamCall[Request, Response]) -> int:
    """The next status."""
    async with asyncio.timeout(5):
        response = await watching.read()
    assert isinstance(response, Response)
    return response.status


@pytest.mark.parametrize("service", ["", "electra.v1.EncoderService"])
async def test_a_server_serves_once_it_is_set(running: Running, service: str) -> None:
    assert (await check(running, service)).status == Response.NOT_SERVING
    running.server.set_serving(True)
    assert (await check(running, service)).status == Response.SERVING
    running.server.set_serving(False)
    assert (await check(running, service)).status == Response.NOT_SERVING


async def test_an_unknown_service_is_not_found(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(running, "other")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watch_reports_each_change_once_and_ends_with_the_server(running: Running) -> None:
    watching = watch(running, "")
    assert await next_status(watching) == Response.NOT_SERVING
    running.server.set_serving(False)
    await check(running, "")  # gives the watch its turn
    running.server.set_serving(True)
    assert await next_status(watching) == Response.SERVING
    async with asyncio.timeout(5):
        await running.server.stop(30)
        assert await next_status(watching) == Response.NOT_SERVING
        assert await watching.read() is grpc.aio.EOF
    assert await watching.code() is grpc.StatusCode.OK


async def test_a_watch_of_an_unknown_service_says_so_and_goes_on(running: Running) -> None:
    watching = watch(running, "other")
    assert await next_status(watching) == Response.SERVICE_UNKNOWN
    assert not watching.done()


async def test_a_connection_may_have_so_many_watches_and_one_that_ends_makes_room(running: Running) -> None:
    watching = [watch(running, "") for _ in range(MAX_PER_CONNECTION)]
    for call in watching:
        assert await next_status(call) == Response.NOT_SERVING
    rejected = watch(running, "")
    assert await rejected.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await rejected.details()) == (
        f"a connection may have at most {MAX_PER_CONNECTION} watches open; close one first"
    )
    assert (await check(running, "")).status == Response.NOT_SERVING, "Check is not limited"
    running.server.set_serving(True)
    for call in watching:
        assert await next_status(call) == Response.SERVING
    watching[0].cancel()
    async with asyncio.timeout(5):
        while not (await first_of(watch(running, ""))):
            pass


async def first_of(watching: grpc.aio.UnaryStreamCall[Request, Response]) -> bool:
    """True if the watch is not rejected."""
    try:
        return await watching.read() is not grpc.aio.EOF
    except grpc.aio.AioRpcError:
        return False


async def test_a_large_request_is_rejected(running: Running) -> None:
    for call in (check(running, "s" * 5000), watch(running, "s" * 5000)):
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_a_call_without_a_message_is_malformed(running: Running, method: str) -> None:
    call = open_call(running.channel, f"/{NAME}/{method}", nothing())
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_calls_that_send_no_message_keep_no_other_out(running: Running, method: str) -> None:
    silent = [open_call(running.channel, f"/{NAME}/{method}", never()) for _ in range(MAX_PER_CONNECTION)]
    for _ in range(MAX_OPEN_RECEIVED):
        assert (await check(running, "")).status == Response.NOT_SERVING
    more = [open_call(running.channel, f"/{NAME}/Check", never()) for _ in range(MAX_OPEN_RECEIVED)]
    assert {await call.code() for call in silent} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert not any(call.done() for call in more[1:])


class TestSlowMessages:
    @pytest.fixture
    def settings(self) -> GrpcSettings:
        return SETTINGS.model_copy(update={"receive_timeout_s": 0.05})

    @pytest.mark.parametrize("method", ["Check", "Watch"])
    async def test_are_ended(self, running: Running, method: str) -> None:
        assert await open_call(running.channel, f"/{NAME}/{method}", never()).code() is grpc.StatusCode.INVALID_ARGUMENT

    async def test_end_no_watch(self, running: Running) -> None:
        watching = watch(running, "")
        assert await next_status(watching) == Response.NOT_SERVING
        await asyncio.sleep(0.1)
        running.server.set_serving(True)
        assert await next_status(watching) == Response.SERVING


async def test_a_call_that_sends_no_message_delays_no_stop(running: Running) -> None:
    call = open_call(running.channel, f"/{NAME}/Check", never())
    await asyncio.sleep(0.1)
    async with asyncio.timeout(5):
        await running.server.stop(30)
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
