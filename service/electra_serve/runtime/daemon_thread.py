"""Blocking work on daemon threads, which the process does not wait for when it exits.

A load can take minutes and cannot be interrupted. The interpreter waits for asyncio's own threads at exit, longer than
an orchestrator allows.
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
    """Runs `work` on its own daemon thread, and returns or raises its outcome.

    If the call is canceled, the thread continues and its result is dropped.
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
        except BaseException as error:  # noqa: BLE001  # raised in the awaiting task
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=THREAD_NAME, daemon=True).start()
    return await done


def mark_abandoned(thread: threading.Thread) -> None:
    """Includes a daemon thread in `abandoned`."""
    thread.name = THREAD_NAME


def abandoned() -> bool:
    """Returns True if such work still runs; the interpreter then cannot shut down safely."""
    return any(thread.name == THREAD_NAME for thread in threading.enumerate())
