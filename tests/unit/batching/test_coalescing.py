"""Waiting for company ends with quiet, or with time, whichever comes first."""

from __future__ import annotations

from electra_serve.batching.coalescing import MAX_COALESCE_S, QUIET_TURNS, CoalescingWindow


def turns_until_over(gathering: CoalescingWindow, waiting: int, now: float = 0.0) -> int:
    turns = 1
    while gathering.goes_on(now, waiting):
        turns += 1
    return turns


def test_quiet_ends_it() -> None:
    assert turns_until_over(CoalescingWindow(0.0, 1), waiting=1) == QUIET_TURNS


def test_a_newcomer_starts_the_count_over() -> None:
    gathering = CoalescingWindow(0.0, 1)
    for _ in range(QUIET_TURNS - 1):
        assert gathering.goes_on(0.0, 1)
    assert gathering.goes_on(0.0, 2)
    assert turns_until_over(gathering, waiting=2) == QUIET_TURNS


def test_time_ends_it_however_many_come() -> None:
    gathering = CoalescingWindow(5.0, 1)
    assert gathering.goes_on(5.0 + 0.99 * MAX_COALESCE_S, 2)
    assert not gathering.goes_on(5.0 + MAX_COALESCE_S, 3)
