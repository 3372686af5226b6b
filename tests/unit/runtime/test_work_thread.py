"""A thread that clients share: one step per event-loop iteration, one client after the other."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from itertools import pairwise

import pytest

from electra_serve.runtime.work_thread import WorkThread, await_loop_turn


class Load:
    """Something that work holds."""


async def test_work_runs_on_one_thread_of_that_name() -> None:
    thread = WorkThread("worker")
    names = await asyncio.gather(*(thread.run(client, lambda: threading.current_thread().name) for client in "abab"))
    assert set(names) == {"worker_0"}


async def test_clients_take_turns() -> None:
    thread, order, gate = WorkThread("worker"), list[str](), threading.Event()
    first = asyncio.create_task(thread.run("c", gate.wait))
    await asyncio.sleep(0)
    tasks = [asyncio.create_task(thread.run(client, lambda name=client: order.append(name))) for client in "aaab"]  # type: ignore[misc]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, *tasks)
    assert order.index("b") <= 1


async def test_the_event_loop_turns_between_steps() -> None:
    steps = 20
    turns = 0

    def work() -> list[int]:
        seen = []
        for _ in range(steps):
            await_loop_turn()
            seen.append(turns)
        return seen

    running = asyncio.create_task(WorkThread("worker").run("a", work))
    while not running.done():
        turns += 1
        await asyncio.sleep(0)
    seen = await running
    assert all(later > earlier for earlier, later in pairwise(seen))


def test_elsewhere_there_is_no_turn_to_wait_for() -> None:
    await_loop_turn()


def test_a_loop_that_has_ended_takes_no_turn() -> None:
    thread, entered, ended = WorkThread("worker"), threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        ended.wait()
        await_loop_turn()

    async def leave() -> None:
        running = asyncio.create_task(thread.run("a", work))
        await asyncio.to_thread(entered.wait)
        running.cancel()

    asyncio.run(leave())
    ended.set()
    assert asyncio.run(thread.run("a", lambda: 7)) == 7


async def test_an_error_holds_nothing_that_its_work_held() -> None:
    refs: list[weakref.ref[Load]] = []

    def fail() -> None:
        load = Load()
        refs.append(weakref.ref(load))
        try:
            int("x")
        except ValueError as error:
            raise KeyError("wrong") from error

    with pytest.raises(KeyError, match="wrong") as caught:
        await WorkThread("worker").run("a", fail)
    gc.collect()
    assert refs[0]() is None
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_canceled_client_leaves_the_thread_to_others() -> None:
    thread, gate = WorkThread("worker"), threading.Event()
    running = asyncio.create_task(thread.run("a", gate.wait))
    waiting = asyncio.create_task(thread.run("a", lambda: pytest.fail("it was cancelled")))
    await asyncio.sleep(0)
    waiting.cancel()
    gate.set()
    assert await running
    assert await thread.run("a", lambda: 7) == 7
