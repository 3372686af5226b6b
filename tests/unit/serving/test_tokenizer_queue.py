"""The tokenizer's queue: fair, bounded, and no slower than one turn for anybody else."""

from __future__ import annotations

import asyncio
import threading

import pytest

from electra_serve.batching.clock import LoopClock
from electra_serve.errors import InvalidInput, Overloaded, PayloadTooLarge
from electra_serve.observability.metrics import Metrics
from electra_serve.presets.tokenizers.steps import STEP_CHARACTERS, Steps
from electra_serve.serving import tokenizer_queue
from electra_serve.serving.tokenizer_queue import CHARACTER_S, TokenizerQueue
from tests.waiting import until

STEP = STEP_CHARACTERS


class Rig:
    """A queue whose thread is held until `open` is set, and the order in which its steps were done.

    Attributes:
        done: The name of each step's request.
        open: Steps wait for it.
    """

    def __init__(self, max_characters: int = 100 * STEP) -> None:
        self.metrics = Metrics("test")
        self.queue = TokenizerQueue(max_characters, LoopClock(), self.metrics.tokenization_wait)
        self.done: list[str] = []
        self.open = threading.Event()

    def steps(self, name: str, count: int) -> Steps[str]:
        for _ in range(count):
            self.open.wait(10)
            self.done.append(name)
            yield STEP
        return name

    def start(
        self, name: str, count: int = 1, *, client: str = "a", priority: int = 1, timeout_s: float | None = None
    ) -> asyncio.Task[str]:
        steps = self.steps(name, count)
        return asyncio.create_task(
            self.queue.run(steps, count * STEP, client=client, priority=priority, timeout_s=timeout_s)
        )

    async def hold(self) -> asyncio.Task[str]:
        """Has the thread held by a first request."""
        task = self.start("first", client="first")
        await until(lambda: self.queue._main.began_s is not None)
        return task


async def finish(rig: Rig, *tasks: asyncio.Task[str]) -> list[str]:
    await asyncio.sleep(0)  # they are admitted
    rig.open.set()
    return await asyncio.gather(*tasks)


async def test_clients_take_turns_whatever_each_sends() -> None:
    rig = Rig()
    first = await rig.hold()
    heavy = [rig.start(f"heavy {i}", 3, client="heavy") for i in range(3)]
    await asyncio.sleep(0)
    light = rig.start("light", client="light")
    assert await finish(rig, first, *heavy, light) == ["first", "heavy 0", "heavy 1", "heavy 2", "light"]
    assert rig.done[:3] == ["first", "heavy 0", "light"]
    assert rig.done[3:] == ["heavy 0"] * 2 + ["heavy 1"] * 3 + ["heavy 2"] * 3


async def test_a_higher_priority_goes_first_between_the_turns_of_another() -> None:
    rig = Rig()
    first = await rig.hold()
    tasks = [rig.start("normal", 2), rig.start("low", priority=2), rig.start("high", priority=0)]
    await finish(rig, first, *tasks)
    assert rig.done == ["first", "high", "normal", "normal", "low"]


async def test_characters_that_wait_are_bounded_and_rejections_say_when_to_retry() -> None:
    rig = Rig(max_characters=10 * STEP)
    first = await rig.hold()
    with pytest.raises(PayloadTooLarge, match=f"at most {10 * STEP} characters"):
        await rig.start("larger than the queue", 11)
    tasks = [rig.start("most", 8), rig.start("others", 2, client="b")]
    await asyncio.sleep(0)
    assert rig.queue.characters == 10 * STEP
    assert rig.queue.work_s == pytest.approx(10 * STEP * CHARACTER_S)
    with pytest.raises(
        Overloaded, match=f"cannot queue {STEP} characters: {10 * STEP} of {10 * STEP} are queued"
    ) as rejection:
        await rig.start("too much", client="c")
    assert rejection.value.retry_after_s == pytest.approx(10 * STEP * CHARACTER_S, rel=0.3)
    await finish(rig, first, *tasks)
    assert (rig.queue.characters, rig.queue.work_s) == (0, 0)


async def test_one_client_leaves_room_for_others() -> None:
    rig = Rig(max_characters=10 * STEP)
    first = await rig.hold()
    tasks = [rig.start(f"{i}") for i in range(8)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="one client may hold at most 4 times the free capacity"):
        await rig.start("ninth")
    await finish(rig, first, *tasks, rig.start("another", client="b"))


async def test_a_turn_after_the_deadline_is_rejected_at_once() -> None:
    rig = Rig()
    first = await rig.hold()
    ahead = rig.start("ahead", 10)
    await asyncio.sleep(0)
    wait_s = 10 * STEP * CHARACTER_S
    with pytest.raises(Overloaded, match="cannot meet the deadline"):
        await rig.start("late", timeout_s=wait_s / 2)
    in_time = rig.start("in time", timeout_s=wait_s * 2)
    await finish(rig, first, ahead, in_time)


async def test_cancelling_costs_nothing() -> None:
    rig = Rig()
    first = await rig.hold()
    gone = rig.start("gone", 5)
    await asyncio.sleep(0)
    gone.cancel()
    stays = rig.start("stays")
    await asyncio.wait([gone])
    assert rig.queue.characters == STEP
    await finish(rig, first, stays)
    assert rig.done == ["first", "stays"]


async def test_a_request_that_is_cancelled_during_its_turn_ends_with_it() -> None:
    rig = Rig()
    running = rig.start("running", 5)
    await until(lambda: rig.queue._main.began_s is not None)
    running.cancel()
    await asyncio.wait([running])
    assert await finish(rig, rig.start("next")) == ["next"]
    assert rig.done == ["running", "next"]


class Panic(BaseException):
    """As native code raises one."""


@pytest.mark.parametrize("error", [InvalidInput("a text is wrong"), Panic("a text is wrong")])
async def test_an_error_reaches_the_request_and_no_other(error: BaseException) -> None:
    def failing() -> Steps[str]:
        yield STEP
        raise error

    rig = Rig()
    rig.open.set()
    with pytest.raises(type(error), match="a text is wrong"):
        await rig.queue.run(failing(), 5 * STEP)
    assert rig.queue.characters == 0
    assert await rig.start("next") == "next"


async def test_a_request_that_ends_early_drops_its_other_turns() -> None:
    rig = Rig()
    rig.open.set()
    assert await rig.queue.run(rig.steps("short", 1), 50 * STEP) == "short"
    assert rig.queue.characters == 0


async def test_a_long_step_does_not_hold_up_short_requests() -> None:
    """A text that cannot be cut, in native code: the second thread takes what is short."""
    held = threading.Event()

    def long() -> Steps[str]:
        held.wait(10)
        yield 10 * STEP
        return "long"

    rig = Rig()
    rig.open.set()
    running = asyncio.create_task(rig.queue.run(long(), 10 * STEP))
    await until(lambda: rig.queue._main.began_s is not None)
    another = rig.start("another", 2)
    async with asyncio.timeout(10):
        assert await rig.start("short", client="b") == "short"
    assert rig.done == ["short"], "what is long keeps waiting"
    held.set()
    assert (await running, await another) == ("long", "another")


async def test_estimates_follow_what_turns_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_queue, "CHARACTER_S", 1e-12)  # much faster than any step
    rig = Rig()
    rig.open.set()
    for _ in range(40):
        await rig.start("fast")
    rig.open.clear()
    first = await rig.hold()
    waiting = rig.start("waiting")
    await asyncio.sleep(0)
    assert rig.queue.work_s > 2 * STEP * 1e-12
    await finish(rig, first, waiting)


async def test_the_wait_of_each_request_is_observed_once() -> None:
    rig = Rig()
    await finish(rig, rig.start("a", 3), rig.start("b"))
    text = rig.metrics.exposition()[0].decode()
    assert "electra_tokenization_wait_seconds_count 2.0" in text
