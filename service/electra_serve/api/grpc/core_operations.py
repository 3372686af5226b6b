"""Awaits operations of gRPC's core.

An operation must not be cancelled while it is pending. Its buffers would be freed while the core still writes to them,
which crashes the process. So time limits stop the waiting, and the operation ends with its call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

T = TypeVar("T")


async def uncancelled(operation: Awaitable[T]) -> T:
    """Awaits an operation of gRPC's core; if the caller is cancelled, the operation goes on."""
    task = asyncio.ensure_future(operation)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        _PENDING.add(task)
        task.add_done_callback(_forget)
        raise


# Operations that are no longer awaited: the event loop alone would not keep them
_PENDING: Final[set[asyncio.Future[Any]]] = set()


def _forget(task: asyncio.Future[Any]) -> None:
    _PENDING.discard(task)
    if not task.cancelled():
        task.exception()  # how it ended is known: its call was ended
