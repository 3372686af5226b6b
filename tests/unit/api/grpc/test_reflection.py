"""Server reflection over a real socket."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from electra_serve.api.grpc.stream_slots import MAX_PER_CONNECTION
from electra_serve.settings.schema import GrpcSettings
from tests.unit.api.grpc.conftest import SETTINGS, Running

Call = grpc.aio.StreamStreamCall[reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse]


def reflect(running: Running) -> Call:
    """Opens a stream."""
    method: grpc.aio.StreamStreamMultiCallable[
        reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse
    ] = running.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    return method()


async def services(call: Call) -> set[str]:
    """Asks an open stream for the services that there are."""
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    response = await call.read()
    assert isinstance(response, reflection_pb2.ServerReflectionResponse)
    return {service.name for service in response.list_services_response.service}


async def test_it_names_the_services_as_often_as_it_is_asked(running: Running) -> None:
    call = reflect(running)
    for _ in range(2):
        assert await services(call) == {
            "electra.v1.EncoderService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK


async def test_an_open_stream_ends_with_the_server(running: Running) -> None:
    call = reflect(running)
    await services(call)
    async with asyncio.timeout(5):
        await running.server.stop(30)
        assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("attempt", range(10))
async def test_a_stream_that_just_got_a_response_ends_with_the_server(running: Running, attempt: int) -> None:
    call = reflect(running)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    reading = asyncio.ensure_future(call.read())
    for _ in range(attempt):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await running.server.stop(30)
        await asyncio.wait({reading})
    reading.exception()  # rejected if it came after the end


async def test_a_connection_may_have_so_many_streams(running: Running) -> None:
    calls = [reflect(running) for _ in range(MAX_PER_CONNECTION)]
    for call in calls:
        await services(call)
    rejected = reflect(running)
    assert await rejected.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"at most {MAX_PER_CONNECTION} reflection streams" in str(await rejected.details())


async def test_a_large_request_is_rejected(running: Running) -> None:
    call = reflect(running)
    await call.write(reflection_pb2.ServerReflectionRequest(file_by_filename="f" * 5000))
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


class TestIdleStreams:
    @pytest.fixture
    def settings(self) -> GrpcSettings:
        return SETTINGS.model_copy(update={"receive_timeout_s": 0.05})

    async def test_end_when_no_request_arrives_in_time(self, running: Running) -> None:
        """gRPC may be buffering a large one."""
        call = reflect(running)
        await services(call)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "must arrive within 0.05 s" in str(await call.details())
