"""A large request is computed in slices, each admitted by itself."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.errors import InvalidInput, Overloaded
from electra_serve.serving.request_context import Deadline
from electra_serve.serving.slices import cut_slices, in_slices

LATER = Deadline(math.inf)
SOON = Deadline(0.0)


PAIRS = [range(2), range(2, 4)]


def thirds(count: int) -> list[range]:
    return cut_slices([1] * count, most_items=3, most_size=100)


@given(st.lists(st.integers(0, 20), max_size=50), st.integers(1, 10), st.integers(1, 40))
def test_slices_have_every_item_once_and_are_as_large_as_allowed(sizes: list[int], items: int, size: int) -> None:
    slices = cut_slices(sizes, most_items=items, most_size=size)
    assert [index for part in slices for index in part] == list(range(len(sizes)))
    totals = [sum(sizes[index] for index in part) for part in slices]
    assert all(
        len(part) == 1 or (len(part) <= items and total <= size) for part, total in zip(slices, totals, strict=True)
    )
    for part, total, following in zip(slices, totals, slices[1:], strict=False):
        assert len(part) == items or total + sizes[following.start] > size


class Recorder:
    """Doubles each item, and records its calls; `full` calls are rejected first."""

    def __init__(self, *, full: int = 0) -> None:
        self.calls: list[range] = []
        self.running = self.most = 0
        self.full = full

    async def __call__(self, items: range) -> list[int]:
        if self.full:
            self.full -= 1
            raise Overloaded("full", retry_after_s=0.001)
        self.calls.append(items)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        return [2 * item for item in items]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 40])
async def test_results_are_in_order_and_each_item_is_computed_once(count: int) -> None:
    compute = Recorder()
    results = await in_slices(thirds(count), compute, LATER, at_once=2)
    assert [doubled for part in results for doubled in part] == [2 * item for item in range(count)]
    assert compute.calls == thirds(count)
    assert compute.most <= 2


async def test_a_slice_that_is_not_admitted_is_retried() -> None:
    compute = Recorder(full=5)
    assert await in_slices(PAIRS, compute, LATER, at_once=2) == [[0, 2], [4, 6]]
    assert len(compute.calls) == 2


async def test_at_the_deadline_the_request_is_rejected() -> None:
    with pytest.raises(Overloaded, match="full"):
        await in_slices(PAIRS, Recorder(full=100), SOON)


async def test_an_error_cancels_the_other_slices_before_it_is_raised() -> None:
    canceled: list[int] = []

    async def compute(items: range) -> int:
        if items.start:
            raise InvalidInput("too long")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            canceled.append(items.start)
            raise
        return items.start

    with pytest.raises(InvalidInput, match="too long"):
        await in_slices(PAIRS, compute, LATER, at_once=2)
    assert canceled == [0]


async def test_cancellation_ends_all_slices() -> None:
    ended: list[int] = []

    async def compute(items: range) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(items.start)

    task = asyncio.create_task(in_slices(PAIRS, compute, LATER, at_once=2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == [0, 2]
