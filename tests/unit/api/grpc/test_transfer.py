"""Messages under the transit budget: what is reserved, for how long, and what ends a call that stalls."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from electra_serve.api.grpc.servicer import SERVICE_NAME
from electra_serve.api.grpc.transfer import COPIES
from electra_serve.proto.electra.v1 import encoder_pb2 as pb
from electra_serve.settings.schema import GrpcSettings
from tests.unit.api.grpc.conftest import BUDGET_BYTES, SETTINGS, Running
from tests.unit.api.grpc.messages import item, request
from tests.unit.api.grpc.open_calls import never, nothing, open_call
from tests.waiting import until

CODE = "electra-error-code"
METHODS = ("Encode", "Classify", "ListModels", "GetModel")
ARRIVED_S = 0.2


async def error_of(call: grpc.aio.Call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return str(dict(caught.value.trailing_metadata() or ())[CODE])


@pytest.mark.parametrize("method", METHODS)
async def test_a_call_being_received_holds_a_full_message(running: Running, method: str) -> None:
    call = open_call(running.channel, f"/{SERVICE_NAME}/{method}", never())
    await until(
        lambda: running.budget.used_bytes == (1 if method == "EncodeStream" else COPIES) * SETTINGS.max_request_bytes
    )
    call.cancel()
    await until(lambda: running.budget.used_bytes == 0)


@pytest.mark.parametrize("method", METHODS)
async def test_a_call_without_a_message_is_malformed(running: Running, method: str) -> None:
    assert await error_of(open_call(running.channel, f"/{SERVICE_NAME}/{method}", nothing())) == "malformed_request"
    await until(lambda: running.budget.used_bytes == 0)


class TestSlowMessages:
    @pytest.fixture
    def settings(self) -> GrpcSettings:
        return SETTINGS.model_copy(update={"receive_timeout_s": 0.05})

    @pytest.mark.parametrize("method", METHODS)
    async def test_are_ended(self, running: Running, method: str) -> None:
        assert await error_of(open_call(running.channel, f"/{SERVICE_NAME}/{method}", never())) == "malformed_request"
        await until(lambda: running.budget.used_bytes == 0)


async def test_a_request_holds_its_own_bytes_while_it_is_computed(running: Running) -> None:
    gate = asyncio.Event()
    running.service.before = lambda _: gate.wait()
    message = request([1, 2], [3])
    call = running.stub.Encode(message)
    await until(lambda: running.budget.used_bytes == COPIES * message.ByteSize())
    gate.set()
    await call
    await until(lambda: running.budget.used_bytes == 0)


async def test_an_open_stream_holds_a_full_message_and_each_of_its_requests(running: Running) -> None:
    gate = asyncio.Event()
    running.service.before = lambda _: gate.wait()
    stream = running.stub.EncodeStream()
    await stream.write(item("a", [1]))
    await until(lambda: running.budget.used_bytes == SETTINGS.max_request_bytes + COPIES * item("a", [1]).ByteSize())
    gate.set()
    await stream.read()
    await until(lambda: running.budget.used_bytes == SETTINGS.max_request_bytes)
    await stream.done_writing()
    await until(lambda: running.budget.used_bytes == 0)


async def test_an_idle_stream_makes_room_and_its_requests_get_responses(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("electra_serve.serving.transit_budget.RECLAIM_AFTER_S", 0.0)
    gate = asyncio.Event()
    running.service.before = lambda _: gate.wait()
    stream = running.stub.EncodeStream()
    await stream.write(item("a", [1]))
    await until(lambda: running.budget.used_bytes == SETTINGS.max_request_bytes + COPIES * item("a", [1]).ByteSize())
    running.budget.reserve("another", BUDGET_BYTES - SETTINGS.max_request_bytes // 2).release()
    await until(lambda: running.budget.used_bytes == COPIES * item("a", [1]).ByteSize())
    gate.set()
    response = await stream.read()
    assert isinstance(response, pb.EncodeStreamResponse)
    assert response.request_id == "a"
    with pytest.raises(grpc.aio.AioRpcError, match="open it again") as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await until(lambda: running.budget.used_bytes == 0)


async def test_a_stream_that_is_reset_at_once_holds_nothing(running: Running) -> None:
    for _ in range(50):
        stream = running.stub.EncodeStream()
        for number in range(5):
            await stream.write(item(f"r{number}", [1]))
        stream.cancel()
    await until(lambda: running.budget.used_bytes == 0)


async def test_over_budget_a_call_is_rejected_before_its_message(running: Running) -> None:
    with running.budget.reserve("another", BUDGET_BYTES):
        assert await error_of(open_call(running.channel, f"/{SERVICE_NAME}/Encode", never())) == "overloaded"
        stream = running.stub.EncodeStream()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert dict(caught.value.trailing_metadata() or ())[CODE] == "overloaded"
    await running.stub.Encode(request([1]))
    assert running.count("overloaded") == 1


async def test_a_burst_waits_its_turn(running: Running) -> None:
    """Ten times more calls at a time than full messages fit."""
    calls = [running.stub.Encode(request([1])) for _ in range(10 * BUDGET_BYTES // SETTINGS.max_request_bytes)]
    assert len(await asyncio.gather(*calls)) == len(calls)
    await until(lambda: running.budget.used_bytes == 0)


async def test_a_draining_server_does_not_wait_for_messages(running: Running) -> None:
    call = open_call(running.channel, f"/{SERVICE_NAME}/Encode", never())
    await until(lambda: running.budget.used_bytes == COPIES * SETTINGS.max_request_bytes)
    stopping = asyncio.create_task(running.server.stop(30))
    assert await error_of(call) == "shutting_down"
    async with asyncio.timeout(10):
        await stopping


@pytest.mark.parametrize("method", ["Encode", "EncodeStream"])
async def test_a_call_that_waits_for_room_does_not_outlast_a_drain(running: Running, method: str) -> None:
    with running.budget.reserve("another", BUDGET_BYTES):
        call = open_call(running.channel, f"/{SERVICE_NAME}/{method}", never())
        await asyncio.sleep(ARRIVED_S)
        stopping = asyncio.create_task(running.server.stop(30))
        await asyncio.sleep(ARRIVED_S)
    assert await error_of(call) == "shutting_down"
    async with asyncio.timeout(10):
        await stopping
