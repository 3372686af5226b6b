"""Messages that are received within limits of time and number."""

from __future__ import annotations

import asyncio
from typing import cast

import grpc
import pytest

from electra_serve.api.grpc.call import Context
from electra_serve.api.grpc.message_reader import MessageReader
from electra_serve.api.grpc.receiver import Receiver
from electra_serve.errors import MalformedRequest, Overloaded, PayloadTooLarge, ServiceError, ShuttingDown
from tests.waiting import until

FOREVER_S = 60.0
PORT = 5000


class FakeContext:
    """A call of an address, whose message the test sends."""

    def __init__(self, address: str = "10.0.0.1") -> None:
        self._peer = f"ipv4:{address}:{PORT}"
        self.message: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.asked = False

    def peer(self) -> str:
        return self._peer

    async def read(self) -> object:
        self.asked = True
        return await asyncio.shield(self.message)


def receive(receiver: Receiver, context: FakeContext) -> asyncio.Task[bytes]:
    return asyncio.create_task(receiver.receive(cast("Context", context)))


async def outcome(task: asyncio.Task[bytes]) -> bytes | type[ServiceError]:
    try:
        async with asyncio.timeout(5):
            return await task
    except ServiceError as error:
        return type(error)


async def start(receiver: Receiver, *addresses: str) -> list[tuple[FakeContext, asyncio.Task[bytes]]]:
    """Receives a message of each address, one after the other."""
    calls = []
    for address in addresses:
        context = FakeContext(address)
        calls.append((context, receive(receiver, context)))
        await asyncio.sleep(0)
    return calls


async def test_a_message_is_returned_and_makes_room() -> None:
    receiver = Receiver(MessageReader(), FOREVER_S, max_concurrent=1)
    for data in (b"a", b"b"):
        context = FakeContext()
        task = receive(receiver, context)
        await until(lambda: receiver.receiving == 1)
        context.message.set_result(data)
        assert await outcome(task) == data
        assert receiver.receiving == 0


async def test_the_end_of_a_stream_is_no_message() -> None:
    context = FakeContext()
    context.message.set_result(grpc.aio.EOF)
    assert await outcome(receive(Receiver(MessageReader(), FOREVER_S), context)) is MalformedRequest
    assert await Receiver(MessageReader(), FOREVER_S).receive_next(cast("Context", context)) is None


async def test_a_late_message_ends_its_call_but_not_the_pending_operation() -> None:
    context = FakeContext()
    assert await outcome(receive(Receiver(MessageReader(), 0.01), context)) is MalformedRequest
    assert not context.message.cancelled(), "gRPC's core still writes to its buffers"


async def test_a_message_that_takes_long_makes_room_for_others_of_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electra_serve.api.grpc.receiver.ARRIVES_WITHIN_S", 0.01)
    receiver = Receiver(MessageReader(), FOREVER_S, max_concurrent=2)
    first, _, third = await start(receiver, "10.0.0.1", "10.0.0.1", "10.0.0.1")
    assert await outcome(first[1]) is Overloaded
    assert not first[0].message.cancelled()
    await asyncio.sleep(0.02)
    assert not third[0].asked, "it counts until gRPC has let go of it"
    first[0].message.set_result(grpc.aio.EOF)
    await until(lambda: third[0].asked)
    third[0].message.set_result(b"here")
    assert await outcome(third[1]) == b"here"


async def test_another_address_gets_room_at_once() -> None:
    receiver = Receiver(MessageReader(), FOREVER_S, max_concurrent=3)
    hostile = await start(receiver, *["10.0.0.9"] * 3)
    (probe,) = await start(receiver, "10.0.0.1")
    assert await outcome(hostile[0][1]) is Overloaded
    hostile[0][0].message.set_result(grpc.aio.EOF)
    await until(lambda: probe[0].asked)
    probe[0].message.set_result(b"probe")
    assert await outcome(probe[1]) == b"probe"
    assert not any(task.done() for _, task in hostile[1:])


async def test_without_room_in_time_a_call_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electra_serve.api.grpc.receiver.MAX_WAIT_S", 0.01)
    receiver = Receiver(MessageReader(), FOREVER_S, max_concurrent=1)
    _, second = await start(receiver, "10.0.0.1", "10.0.0.1")
    assert await outcome(second[1]) is Overloaded


async def test_the_error_of_a_large_message_does_not_keep_it() -> None:
    context = FakeContext()
    context.message.set_result(bytes(11))
    with pytest.raises(PayloadTooLarge, match="at most 10 bytes; got 11") as caught:
        await Receiver(MessageReader(), FOREVER_S, max_bytes=10).receive(cast("Context", context))
    frames = [frame.frame for frame in caught.traceback]
    assert not any(isinstance(value, bytes) for frame in frames for value in frame.f_locals.values())


async def test_one_that_just_expires_may_be_asked_for_room_or_drained() -> None:
    receiver = Receiver(MessageReader(), 0.01, max_concurrent=1)
    (late,) = await start(receiver, "10.0.0.1")
    expired = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, expired.set)
    await expired.wait()
    receiver.drain(1.0)
    late[0].message.set_result(grpc.aio.EOF)
    (newcomer,) = await start(receiver, "10.0.0.1")
    assert issubclass(cast("type[ServiceError]", await outcome(late[1])), ServiceError)
    newcomer[0].message.set_result(b"here")
    assert await outcome(newcomer[1]) == b"here"


async def test_a_drain_passes_over_messages_whose_client_has_left() -> None:
    receiver = Receiver(MessageReader(), FOREVER_S, max_concurrent=1)
    (left,) = await start(receiver, "10.0.0.1")
    await until(lambda: left[0].asked)
    left[1].cancel()
    await asyncio.gather(left[1], return_exceptions=True)
    assert receiver.receiving == 1, "gRPC still reads it"
    receiver.drain(1.0)
    left[0].message.set_result(grpc.aio.EOF)
    await until(lambda: not receiver.receiving)


async def test_a_drain_shortens_the_time_of_all() -> None:
    receiver = Receiver(MessageReader(), FOREVER_S)
    (before,) = await start(receiver, "10.0.0.1")
    receiver.drain(0.01)
    (after,) = await start(receiver, "10.0.0.1")
    assert await outcome(before[1]) is ShuttingDown
    assert await outcome(after[1]) is ShuttingDown
