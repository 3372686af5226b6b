"""Work that nothing waits for: its result, its error, and its end once it is abandoned."""

from __future__ import annotations

import asyncio
import threading

import pytest

from electra_serve.runtime.daemon_thread import abandoned, run_in_daemon_thread


async def test_the_result_comes_back_from_another_thread() -> None:
    assert await run_in_daemon_thread(threading.get_ident) != threading.get_ident()


async def test_an_error_comes_back() -> None:
    with pytest.raises(ZeroDivisionError):
        await run_in_daemon_thread(lambda: 1 / 0)


async def test_cancelling_does_not_wait_and_the_late_result_is_dropped() -> None:
    release, finished = threading.Event(), threading.Event()

    def work() -> None:
        release.wait()
        finished.set()

    task = asyncio.create_task(run_in_daemon_thread(work))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert abandoned()
    release.set()
    assert await asyncio.to_thread(finished.wait, 10)


def test_a_result_that_comes_after_the_loop_has_gone_is_dropped() -> None:
    release, finished = threading.Event(), threading.Event()

    def work() -> None:
        release.wait()
        finished.set()

    async def start() -> None:
        asyncio.create_task(run_in_daemon_thread(work))  # noqa: RUF006  # dropped on purpose
        await asyncio.sleep(0)

    asyncio.run(start())
    release.set()
    assert finished.wait(10)
