"""The server as a whole: limits, reflection, its port, and stopping."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TypeAlias

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from electra_serve.api.grpc.server import MAX_METADATA_BYTES, GrpcServer
from electra_serve.errors import Overloaded, StartupError
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.proto.electra.v1.encoder_pb2_grpc import EncoderServiceStub
from electra_serve.settings.schema import GrpcSettings
from tests.fake_service import FakeService
from tests.fakes import connection_table, transit_budget
from tests.unit.api.grpc.conftest import SETTINGS, Running, observer
from tests.unit.api.grpc.messages import request
from tests.waiting import until

Reflect: TypeAlias = grpc.aio.StreamStreamMultiCallable[
    reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse
]


BURST = 2000
GRACE_S = 0.3


def another(settings: GrpcSettings) -> GrpcServer:
    return GrpcServer(
        FakeService(), settings, observer(), max_sequences=1, budget=transit_budget(), connections=connection_table()
    )


async def test_reflection_lists_and_describes_the_services(running: Running) -> None:
    method: Reflect = running.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="electra.v1.EncoderService"),
    ]
    listed, described = [response async for response in method(iter(asked))]
    assert {service.name for service in listed.list_services_response.service} == {
        "electra.v1.EncoderService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert b"EncodeStream" in b"".join(described.file_descriptor_response.file_descriptor_proto)


async def test_a_burst_is_taken_up_and_rejected_with_a_word(running: Running) -> None:
    """gRPC itself would cancel calls by chance once a thousand wait to be taken up."""
    running.service.full = Overloaded("full", retry_after_s=0.5)
    calls = [running.raw("/electra.v1.EncoderService/Encode", b"") for _ in range(BURST)]
    # The calls are on their way, and the event loop that would take them up is held.
    await asyncio.sleep(0)
    time.sleep(0.5)  # noqa: ASYNC251  # what it is about
    rejections = await asyncio.gather(*calls, return_exceptions=True)
    codes = Counter(rejection.code() for rejection in rejections if isinstance(rejection, grpc.aio.AioRpcError))
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED: BURST}


def sized(total_bytes: int) -> pb.EncodeRequest:
    """Returns a message of exactly so many bytes, which the codec would reject for its empty tensor."""
    empty = pb.EncodeRequest(request_id="r", model="m" * 128).ByteSize()
    return pb.EncodeRequest(request_id="r", model="m" * (128 + total_bytes - empty))


async def test_a_request_message_is_bounded_from_both_sides(running: Running) -> None:
    limit = SETTINGS.max_request_bytes
    for message, slug in ((sized(limit), "malformed_request"), (sized(limit + 1), None)):
        assert message.ByteSize() == limit + (slug is None)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Encode(message)
        assert dict(caught.value.trailing_metadata()).get("electra-error-code") == slug
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stock_client_takes_4_mb_unless_configured() -> None:
    server = GrpcServer(
        FakeService(),
        GrpcSettings(port=0),
        observer(),
        max_sequences=1,
        budget=transit_budget(),
        connections=connection_table(),
    )
    port = await server.start()
    large = request([1] * 300_000, outputs=[pb.OUTPUT_SEQUENCE])  # 4 wide: 4.8 MB
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EncoderServiceStub(channel).Encode(large)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "electra-error-code" not in dict(caught.value.trailing_metadata())
    unlimited = (("grpc.max_receive_message_length", -1),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=unlimited) as channel:
        assert (await EncoderServiceStub(channel).Encode(large)).ByteSize() > 4 * 2**20
    await server.stop(0)


async def test_an_unknown_method_is_unimplemented(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.raw("/electra.v1.EncoderService/Decode", b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "Decode" not in (caught.value.details() or "")


@pytest.mark.parametrize("fits", [True, False])
async def test_metadata_is_bounded_from_both_sides(running: Running, fits: bool) -> None:
    filler = "a" * (MAX_METADATA_BYTES - 2000 if fits else MAX_METADATA_BYTES)
    call = running.stub.ListModels(pb.ListModelsRequest(), metadata=(("x-filler", filler),))
    if fits:
        await call
        return
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "aaa" not in (caught.value.details() or "")
    await running.stub.ListModels(pb.ListModelsRequest())


async def test_a_taken_port_is_a_startup_error(running: Running) -> None:
    with pytest.raises(StartupError, match=f"cannot listen on 127.0.0.1:{running.port}"):
        await another(SETTINGS.model_copy(update={"port": running.port})).start()


async def test_an_ipv6_address_is_bracketed() -> None:
    server = another(SETTINGS.model_copy(update={"host": "::1"}))
    try:
        port = await server.start()
    except StartupError as error:
        assert "[::1]:0" in str(error)  # noqa: PT017 - a machine without IPv6
        return
    async with grpc.aio.insecure_channel(f"[::1]:{port}") as channel:
        await channel.channel_ready()
    await server.stop(0)


async def test_stopping_lets_what_was_accepted_finish_and_accepts_no_more(running: Running) -> None:
    gate = asyncio.Event()
    running.service.before = lambda _: gate.wait()
    call = running.stub.Encode(request([1]))
    await until(lambda: len(running.service.requests) == 1)
    stopping = asyncio.create_task(running.server.stop(30))
    await asyncio.sleep(0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.Encode(request([2]))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(caught.value.trailing_metadata())["electra-error-code"] == "shutting_down"
    assert not stopping.done()
    gate.set()
    assert (await call).usage.tokens == 1
    async with asyncio.timeout(5):
        await stopping


async def test_stopping_cancels_what_outlasts_its_grace(running: Running) -> None:
    never = asyncio.Event()
    running.service.before = lambda _: never.wait()
    call = running.stub.Encode(request([1]))
    await until(lambda: len(running.service.requests) == 1)
    async with asyncio.timeout(5):
        await running.server.stop(0.01)
    await until(lambda: running.service.cancelled == 1)
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call


@pytest.mark.parametrize("late_s", [0.0, 0.001, 0.002])
async def test_a_second_stop_shortens_the_grace_even_as_the_first_ends(running: Running, late_s: float) -> None:
    """gRPC's own server would free what its other `stop` still uses, and the process would die of it."""
    never = asyncio.Event()
    running.service.before = lambda _: never.wait()
    for _ in range(3):
        running.stub.Encode(request([1]))
    await until(lambda: len(running.service.requests) == 3)
    first = asyncio.create_task(running.server.stop(GRACE_S))
    async with asyncio.timeout(5):
        await asyncio.sleep(GRACE_S - late_s)
        await asyncio.gather(running.server.stop(0.0), first)


async def test_a_server_that_never_started_stops() -> None:
    await another(SETTINGS).stop(0)
