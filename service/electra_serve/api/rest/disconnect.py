"""Cancels work whose client has disconnected.

ASGI servers do not cancel a handler when its client disconnects. They report it through `receive`, which is awaited
here while the work runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

from electra_serve.errors import Cancelled

T = TypeVar("T")


async def unless_disconnected(work: Awaitable[T], receive: Receive) -> T:
    """Awaits `work`; cancels it and raises `Cancelled` if the client disconnects first."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(receive))
    watch.add_done_callback(lambda _: task.cancel())
    try:
        return await task
    except asyncio.CancelledError as error:
        if watch.done() and not watch.cancelled():
            raise Cancelled("the client disconnected before its response was ready") from watch.exception() or error
        raise
    finally:
        watch.cancel()


async def _disconnected(receive: Receive) -> None:
    """Returns when the client has disconnected; raises if the channel fails."""
    while (await receive())["type"] != "http.disconnect":
        pass
