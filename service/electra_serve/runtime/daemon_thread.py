"""Blocking work that nobody waits for when the process is told to stop.

A load takes from seconds to minutes and cannot be interrupted. asyncio's own threads are waited for at exit, which
would outlast the time an orchestrator gives; these are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

THREAD_NAME: Final = "abandonable"


async def run_in_daemon_thread(work: Callable[[], T]) -> T:
    """Runs `work` on a daemon thread of its own.

    Cancelling the call leaves the thread to itself; its result is dropped.

    Raises:
        BaseException: Whatever `work` raises.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]  # without an error there is a result
        else:
            done.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  # handed to whoever awaits it
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has gone, and with it whoever asked
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=THREAD_NAME, daemon=True).start()
    return await done


def mark_abandoned(thread: threading.Thread) -> None:
    """Counts a daemon thread among those that `abandoned` looks for."""
    thread.name = THREAD_NAME


def abandoned() -> bool:
    """Whether such work still runs: then the interpreter cannot be taken down in good order under it."""
    return any(thread.name == THREAD_NAME for thread in threading.enumerate())
