"""One thread for work that is too long for the event loop; clients take turns at it.

Decoding and rendering hold the GIL, so several threads would not be faster: they would only keep the GIL from the event
loop. The event loop needs the GIL for each of its callbacks, and would wait for each of them. So the thread works one
step for each turn of the event loop, however many connections that turn serves.
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

_TURN_TIMEOUT_S: Final = 1.0
"""A loop that has ended takes no turn."""
_local: Final = threading.local()


class WorkThread:
    """Runs functions on one thread, for one event loop.

    A client's next function is queued when its previous one is done, so each client waits for at most one function of
    each other client.

    Args:
        name: The thread's.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, name)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self, client: str, work: Callable[[], T]) -> T:
        """Runs `work` when it is this client's turn.

        Args:
            client: The client that the work is for.
            work: Touches nothing that the event loop changes meanwhile. Calls `await_loop_turn` after each step of
                some milliseconds.

        Returns:
            Its result. What it raises is raised.
        """
        loop = asyncio.get_running_loop()
        async with self._turns.setdefault(client, asyncio.Lock()):
            return await loop.run_in_executor(self._pool, _run, loop, work)


def await_loop_turn() -> None:
    """Waits until the event loop has served all that was ready; does nothing on other threads than a `WorkThread`'s."""
    loop: asyncio.AbstractEventLoop | None = getattr(_local, "loop", None)
    if loop is None:
        return
    turn = threading.Event()
    try:
        loop.call_soon_threadsafe(turn.set)
    except RuntimeError:  # it is closed
        return
    turn.wait(_TURN_TIMEOUT_S)


def _run(loop: asyncio.AbstractEventLoop, work: Callable[[], T]) -> T:
    """Runs `work`; an error keeps none of its local variables, which the event loop would have to free."""
    _local.loop = loop
    await_loop_turn()
    try:
        return work()
    except Exception as error:
        clear_frames(error)
        raise
