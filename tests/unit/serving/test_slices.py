"""A large request is computed in slices, each admitted by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from electra_serve.errors import InvalidInput, Overloaded
from electra_serve.serving.request_context import Deadline
from electra_serve.serving.slices import in_slices

LATER = Deadline(time.monotonic() + 600.0)
SOON = Deadline(0.0)


class Recorder:
    """Doubles each item, and records its calls; `full` calls are rejected first."""

    def __init__(self, *, full: int = 0) -> None:
        self.calls: list[tuple[int, int]] = []
        self.running = self.most = 0
        self.full = full

    async def __call__(self, start: int, items: Sequence[int]) -> list[int]:
        if self.full:
            self.full -= 1
            raise Overloaded("full", retry_after_s=0.001)
        self.calls.append((start, len(items)))
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        return [2 * item for item in items]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 40])
async def test_results_are_in_order_and_each_item_is_computed_once(count: int) -> None:
    compute = Recorder()
    results = await in_slices(range(count), compute, LATER, size=3, at_once=2)
    assert [doubled for part in results for doubled in part] == [2 * item for item in range(count)]
    assert sorted(compute.calls) == [(start, min(3, count - start)) for start in range(0, count, 3)]
    assert compute.most <= 2


async def test_a_slice_that_is_not_admitted_is_retried() -> None:
    compute = Recorder(full=5)
    assert await in_slices(range(4), compute, LATER, size=2, at_once=2) == [[0, 2], [4, 6]]
    assert len(compute.calls) == 2


async def test_at_the_deadline_the_request_is_rejected() -> None:
    with pytest.raises(Overloaded, match="full"):
        await in_slices(range(4), Recorder(full=100), SOON, size=2)


async def test_an_error_cancels_the_other_slices_before_it_is_raised() -> None:
    canceled: list[int] = []

    async def compute(start: int, _items: Sequence[int]) -> int:
        if start:
            raise InvalidInput("too long")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            canceled.append(start)
            raise
        return start

    with pytest.raises(InvalidInput, match="too long"):
        await in_slices(range(4), compute, LATER, size=2, at_once=2)
    assert canceled == [0]


async def test_cancellation_ends_all_slices() -> None:
    ended: list[int] = []

    async def compute(start: int, _items: Sequence[int]) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(start)

    task = asyncio.create_task(in_slices(range(4), compute, LATER, size=2, at_once=2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == [0, 2]
