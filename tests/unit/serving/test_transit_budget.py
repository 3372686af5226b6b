"""The budget of bytes in transit: bounded, fair, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.errors import Overloaded
from electra_serve.serving.transit_budget import (
    MAX_RETRY_S,
    MAX_WAITERS,
    MIN_RETRY_S,
    RATE_WINDOW_S,
    RECLAIM_AFTER_S,
    SHARE,
    TransitBudget,
)

MAX_BYTES = 1000


class Time:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def budget(now: Time | None = None) -> TransitBudget:
    return TransitBudget(MAX_BYTES, now or Time())


def test_the_bound_from_both_sides() -> None:
    transit = budget()
    first = transit.reserve("a", MAX_BYTES - 1)
    with pytest.raises(Overloaded):
        transit.reserve("b", 2)
    transit.reserve("b", 1)
    assert transit.used_bytes == MAX_BYTES
    first.release()
    assert transit.used_bytes == 1


def test_more_than_the_whole_budget_counts_as_the_whole() -> None:
    transit = budget()
    reservation = transit.reserve("a", 10 * MAX_BYTES)
    assert reservation.size == transit.used_bytes == MAX_BYTES


def test_a_client_that_holds_bytes_leaves_room_for_others() -> None:
    transit = budget()
    most = MAX_BYTES * SHARE // (SHARE + 1)
    for _ in range(most // 10):
        transit.reserve("greedy", 10)
    with pytest.raises(Overloaded):
        transit.reserve("greedy", 10)
    transit.reserve("other", MAX_BYTES - most)


async def test_a_lone_request_may_grow_to_the_whole_budget() -> None:
    transit = budget()
    reservation = transit.reserve("a", 100)
    await reservation.resize(MAX_BYTES, timeout_s=0)
    assert transit.used_bytes == MAX_BYTES
    reservation.release()
    first, second = transit.reserve("a", 100), transit.reserve("a", 100)
    await first.resize(700, timeout_s=0)
    with pytest.raises(Overloaded, match="this client, which may hold at most 4 times the free bytes"):
        await second.resize(200, timeout_s=0)


async def test_growth_that_does_not_fit_changes_nothing() -> None:
    transit = budget()
    other = transit.reserve("b", 100)
    reservation = transit.reserve("a", 100)
    with pytest.raises(Overloaded):
        await reservation.resize(950, timeout_s=0)
    assert (reservation.size, transit.used_bytes) == (100, 200)
    other.release()
    await reservation.resize(500)
    assert (reservation.size, transit.used_bytes) == (500, 500)
    await reservation.resize(50)
    assert transit.used_bytes == 50
    reservation.release()
    reservation.release()
    assert transit.used_bytes == 0


def test_retry_after_follows_the_rate_of_release() -> None:
    now = Time()
    transit = budget(now)
    held = transit.reserve("a", MAX_BYTES)
    with pytest.raises(Overloaded) as stalled:
        transit.reserve("b", 100)
    assert stalled.value.retry_after_s == MAX_RETRY_S
    held.shrink(MAX_BYTES - 100)
    transit.reserve("b", 100)
    with pytest.raises(Overloaded) as moving:
        transit.reserve("b", 100)
    assert moving.value.retry_after_s == pytest.approx(RATE_WINDOW_S)
    now.seconds += RATE_WINDOW_S
    with pytest.raises(Overloaded) as slower:
        transit.reserve("b", 100)
    assert MIN_RETRY_S < (moving.value.retry_after_s or 0) < (slower.value.retry_after_s or 0) <= MAX_RETRY_S


async def test_waiting_requests_get_their_bytes_in_order() -> None:
    transit = budget()
    held = transit.reserve("a", MAX_BYTES)
    waiting = [asyncio.create_task(transit.acquire(client, 400, 10.0)) for client in "bcd"]
    await asyncio.sleep(0)
    held.shrink(100)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, True, False]
    (await waiting[0]).release()
    (await waiting[2]).release()
    assert transit.used_bytes == 500


async def test_a_client_over_its_share_does_not_block_those_behind_it() -> None:
    transit = budget()
    transit.reserve("greedy", 800)
    first = asyncio.create_task(transit.acquire("greedy", 100, 10.0))
    second = asyncio.create_task(transit.acquire("other", 100, 10.0))
    assert (await second).size == 100
    assert not first.done()
    transit.reserve("third", 10)
    first.cancel()
    await asyncio.sleep(0)
    assert transit.used_bytes == 910


async def test_a_large_response_of_a_client_does_not_block_others() -> None:
    transit = budget()
    transit.reserve("greedy", 700)
    growing = asyncio.create_task(transit.acquire("greedy", 400, 10.0))
    await asyncio.sleep(0)
    assert (await transit.acquire("other", 100, 1.0)).size == 100
    growing.cancel()


async def test_small_requests_do_not_keep_a_large_one_out() -> None:
    transit = budget()
    held = transit.reserve("a", 700)
    large = asyncio.create_task(transit.acquire("b", 600, 10.0))
    await asyncio.sleep(0)
    small = asyncio.create_task(transit.acquire("c", 100, 10.0))
    await asyncio.sleep(0)
    assert not small.done()
    held.release()
    assert (await large).size == 600
    assert (await small).size == 100


async def test_requests_that_keep_arriving_do_not_keep_a_growing_one_out() -> None:
    transit = budget()
    grown = transit.reserve("large", 100)

    async def keep_busy() -> None:
        while True:
            with await transit.acquire("busy", 200, None):
                await asyncio.sleep(0)

    busy = [asyncio.create_task(keep_busy()) for _ in range(8)]
    await asyncio.sleep(0)
    await grown.resize(900, timeout_s=10)
    assert grown.size == 900
    grown.release()
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    assert transit.used_bytes == 0


async def test_waiting_requests_of_a_client_are_limited() -> None:
    transit = budget()
    held = transit.reserve("a", MAX_BYTES)
    waiting = [asyncio.create_task(transit.acquire("greedy", 1, 10.0)) for _ in range(MAX_WAITERS)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await transit.acquire("greedy", 1, 10.0)
    other = asyncio.create_task(transit.acquire("other", 1, 10.0))
    await asyncio.sleep(0)
    held.release()
    assert (await other).size == 1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_growth_does_not_wait_behind_new_requests_of_its_client() -> None:
    transit = budget()
    request, other = transit.reserve("a", 100), transit.reserve("b", 700)
    blocked = asyncio.create_task(transit.acquire("a", 900, None))
    await asyncio.sleep(0)
    growing = asyncio.create_task(request.resize(300))
    await asyncio.sleep(0)
    other.release()
    await growing
    assert request.size == 300
    assert not blocked.done()
    blocked.cancel()


class TestReclaiming:
    """Reservations that are kept for a next message."""

    def test_many_clients_that_keep_room_do_not_keep_another_out(self) -> None:
        now = Time()
        transit = budget(now)
        with contextlib.ExitStack() as kept:
            idle = [transit.reserve(f"client {i}", MAX_BYTES // 10) for i in range(10)]
            for reservation in idle:
                kept.enter_context(transit.reclaimable(reservation, reservation.release))
            with pytest.raises(Overloaded):
                transit.reserve("new", 1)  # none is idle yet
            now.seconds = RECLAIM_AFTER_S
            assert transit.reserve("new", 150).size == 150
        assert [reservation.size for reservation in idle] == [0, 0, *[MAX_BYTES // 10] * 8]

    def test_a_client_takes_nothing_from_those_that_hold_less(self) -> None:
        now = Time()
        transit = budget(now)
        transit.reserve("large", 700)
        small = transit.reserve("small", 300)
        with transit.reclaimable(small, small.release):
            now.seconds = RECLAIM_AFTER_S
            with pytest.raises(Overloaded):
                transit.reserve("large", 10)
        assert small.size == 300

    async def test_a_request_that_waits_reclaims_too(self) -> None:
        now = Time()
        transit = budget(now)
        idle = transit.reserve("idle", MAX_BYTES)
        with transit.reclaimable(idle, idle.release):
            now.seconds = RECLAIM_AFTER_S
            assert (await transit.acquire("new", 10, timeout_s=0.0)).size == 10

    def test_what_is_used_again_is_kept(self) -> None:
        now = Time()
        transit = budget(now)
        busy = transit.reserve("busy", MAX_BYTES)
        with transit.reclaimable(busy, busy.release):
            pass
        now.seconds = RECLAIM_AFTER_S
        with pytest.raises(Overloaded):
            transit.reserve("new", 1)


async def test_waiting_ends_with_overloaded() -> None:
    transit = budget()
    transit.reserve("a", MAX_BYTES)
    with pytest.raises(Overloaded):
        await transit.acquire("b", 1, timeout_s=0.0)
    assert transit.used_bytes == MAX_BYTES


async def test_a_release_at_the_moment_of_a_cancellation() -> None:
    transit = budget()
    held = transit.reserve("a", MAX_BYTES)
    waiting = asyncio.create_task(transit.acquire("b", MAX_BYTES, 10.0))
    await asyncio.sleep(0)
    waiting.cancel()
    held.shrink(1)  # looks through those that wait, before the cancelled one runs again
    with pytest.raises(asyncio.CancelledError):
        await waiting
    held.release()
    assert (transit.used_bytes, transit._lines) == (0, {})


async def test_cancelled_waiting_takes_nothing() -> None:
    transit = budget()
    held = transit.reserve("a", MAX_BYTES)
    waiting = asyncio.create_task(transit.acquire("b", 10, 10.0))
    await asyncio.sleep(0)
    held.release()  # gives the waiter its bytes, before it runs again
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert transit.used_bytes == 0
    transit.reserve("c", MAX_BYTES)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1500), st.integers(0, 1500)), max_size=30))
def test_sums_add_up(steps: list[tuple[str, int, int]]) -> None:
    transit = budget()
    held = []
    for client, size, later in steps:
        with contextlib.suppress(Overloaded):
            held.append(transit.reserve(client, size))
            held[-1].shrink(later)
        assert transit.used_bytes == sum(reservation.size for reservation in held) <= MAX_BYTES
        if len(held) > 3:
            held.pop(0).release()
    for reservation in held:
        reservation.release()
    assert transit.used_bytes == 0
    transit.reserve("d", MAX_BYTES)
