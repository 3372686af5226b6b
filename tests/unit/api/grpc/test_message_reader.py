"""Messages that are read with pauses between large ones."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import grpc

from electra_serve.api.grpc.call import Context
from electra_serve.api.grpc.message_reader import BYTES_PER_S, MAX_COPIED_BYTES, MessageReader

LARGE = MAX_COPIED_BYTES
ROUNDS = 5


class FakeContext:
    """A call whose message arrives with all others; it is copied when its reader resumes."""

    def __init__(self, arrived: asyncio.Future[None], size: int, copied: list[int]) -> None:
        self._arrived = arrived
        self._size = size
        self._copied = copied

    async def read(self) -> object:
        await asyncio.shield(self._arrived)
        if self._size < 0:
            return grpc.aio.EOF
        self._copied.append(self._size)
        return bytes(self._size)


class Calls:
    """Messages of some sizes that arrive at the same time; a negative size is the end of a stream."""

    def __init__(self, *sizes: int) -> None:
        self.copied: list[int] = []
        self.arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = MessageReader()
        contexts = [FakeContext(self.arrived, size, self.copied) for size in sizes]
        self.reading = [asyncio.create_task(self._reader.read(cast("Context", context))) for context in contexts]

    async def arrive(self) -> None:
        await asyncio.sleep(0.01)
        self.arrived.set_result(None)
        for _ in range(ROUNDS):
            await asyncio.sleep(0)


async def test_small_messages_are_read_at_once() -> None:
    calls = Calls(*[1000] * 50)
    await calls.arrive()
    assert all(task.done() for task in calls.reading)


async def test_large_messages_are_read_one_after_the_other() -> None:
    calls = Calls(*range(LARGE, LARGE + 4))
    began = time.monotonic()
    await calls.arrive()
    assert calls.copied == [LARGE], "the others pause"
    assert [len(message or b"") for message in await asyncio.gather(*calls.reading)] == [*range(LARGE, LARGE + 4)]
    assert calls.copied == [*range(LARGE, LARGE + 4)]
    assert time.monotonic() - began >= 3 * LARGE / BYTES_PER_S


async def test_a_small_message_waits_for_one_large_one_at_most() -> None:
    calls = Calls(LARGE, 10, LARGE, LARGE)
    await calls.arrive()
    await calls.reading[1]
    assert calls.copied[:2] == [LARGE, 10]
    await asyncio.gather(*calls.reading)


async def test_the_end_of_a_stream_is_none() -> None:
    calls = Calls(-1)
    await calls.arrive()
    assert await calls.reading[0] is None


async def test_its_arrival_is_reported_before_it_is_copied() -> None:
    calls = Calls()
    seen: list[list[int]] = []
    context = FakeContext(calls.arrived, 10, calls.copied)
    calls.reading = [
        asyncio.create_task(MessageReader().read(cast("Context", context), lambda: seen.append([*calls.copied])))
    ]
    await calls.arrive()
    assert (seen, calls.copied) == ([[]], [10])
