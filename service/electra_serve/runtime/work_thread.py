"""One thread for work that is too long for the event loop; clients take turns.

Decoding and rendering hold the GIL, so more threads would be no faster and would delay each callback of the loop. The
thread runs one step in each event-loop iteration, however many connections that iteration serves.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from electra_serve.runtime.frames import clear_frames

T = TypeVar("T")

_TURN_TIMEOUT_S: Final = 1.0  # limit for a loop that has ended
_local: Final = threading.local()


class WorkThread:
    """Runs functions on one thread, for one event loop.

    A client has one function in the queue, so it waits for at most one function of each other client.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, name)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self, client: str, work: Callable[[], T]) -> T:
        """Runs `work` in the turn of `client`, and returns or raises its outcome.

        `work` must share no data with the event loop, and call `await_loop_turn` after each step of some milliseconds.
        """
        loop = asyncio.get_running_loop()
        async with self._turns.setdefault(client, asyncio.Lock()):
            return await loop.run_in_executor(self._pool, _run, loop, work)


def await_loop_turn() -> None:
    """Waits for the next event-loop iteration; does nothing on threads other than a `WorkThread`'s."""
    loop: asyncio.AbstractEventLoop | None = getattr(_local, "loop", None)
    if loop is None:
        return
    turn = threading.Event()
    try:
        loop.call_soon_threadsafe(turn.set)
    except RuntimeError:  # the loop is closed
        return
    turn.wait(_TURN_TIMEOUT_S)


def _run(loop: asyncio.AbstractEventLoop, work: Callable[[], T]) -> T:
    """Runs `work`; clears the frames of an error, which the event loop would have to free."""
    _local.loop = loop
    await_loop_turn()
    try:
        return work()
    except Exception as error:
        clear_frames(error)
        raise
