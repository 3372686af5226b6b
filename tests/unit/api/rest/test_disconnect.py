from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from electra_serve.api.rest.disconnect import unless_disconnected
from electra_serve.errors import Cancelled, Overloaded
from tests.unit.api.rest.asgi import DISCONNECT, Wire, body_message, settle

PATIENCE_S = 10
"""Only reached by a test that fails."""


class Work:
    """Work that ends at an event."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self.cancelled = False

    async def run(self) -> str:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error:
            raise self.error
        return "answer"


async def no_task_is_left() -> bool:
    await settle()
    return asyncio.all_tasks() == {asyncio.current_task()}


async def test_work_that_ends_first_gets_its_response() -> None:
    work = Work()
    work.gate.set()
    assert await unless_disconnected(work.run(), Wire().receive) == "answer"
    assert await no_task_is_left()


async def test_an_error_of_the_work_passes_through() -> None:
    work = Work()
    work.gate.set()
    work.error = Overloaded("full")
    with pytest.raises(Overloaded):
        await unless_disconnected(work.run(), Wire().receive)
    assert await no_task_is_left()


async def test_a_client_that_leaves_cancels_the_work() -> None:
    work, wire = Work(), Wire()
    waiting = asyncio.ensure_future(unless_disconnected(work.run(), wire.receive))
    await settle()
    assert not waiting.done()
    wire.push(DISCONNECT)
    with pytest.raises(Cancelled):
        await asyncio.wait_for(waiting, PATIENCE_S)
    assert work.cancelled
    assert await no_task_is_left()


async def test_a_client_that_had_left_before_cancels_the_work() -> None:
    work = Work()
    with pytest.raises(Cancelled):
        await unless_disconnected(work.run(), Wire(DISCONNECT).receive)
    assert await no_task_is_left()


async def test_other_messages_do_not_count() -> None:
    work, wire = Work(), Wire(body_message(b""))
    waiting = asyncio.ensure_future(unless_disconnected(work.run(), wire.receive))
    await settle()
    work.gate.set()
    assert await waiting == "answer"


async def test_a_channel_that_fails_counts_as_left() -> None:
    async def broken() -> Message:
        raise ConnectionResetError

    work = Work()
    with pytest.raises(Cancelled) as caught:
        await unless_disconnected(work.run(), broken)
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert work.cancelled
    assert await no_task_is_left()


async def test_a_caller_that_is_cancelled_cancels_the_work() -> None:
    work = Work()
    waiting = asyncio.ensure_future(unless_disconnected(work.run(), Wire().receive))
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert work.cancelled
    assert await no_task_is_left()
