"""Gives up work whose caller has left.

HTTP servers do not cancel a handler when its client goes away; they only say so to whoever asks. Here the
question is asked all the while the work runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

from electra_serve.errors import Cancelled

T = TypeVar("T")


async def unless_disconnected(work: Awaitable[T], receive: Receive) -> T:
    """Runs `work` to its end, or until the client leaves.

    Args:
        work: What to await; cancelled when the client leaves or the caller is cancelled.
        receive: The request's ASGI channel, its body already read.

    Raises:
        Cancelled: The client left first.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(receive))
    watch.add_done_callback(lambda _: task.cancel())
    try:
        return await task
    except asyncio.CancelledError as error:
        if watch.done() and not watch.cancelled():
            raise Cancelled("the client left before its answer was there") from watch.exception() or error
        raise
    finally:
        watch.cancel()


async def _disconnected(receive: Receive) -> None:
    """Returns when the client has left; a channel that fails counts as that too."""
    while (await receive())["type"] != "http.disconnect":
        pass
