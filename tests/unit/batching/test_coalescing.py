"""The coalescing window closes after quiet iterations or after its time limit."""

from __future__ import annotations

from electra_serve.batching.coalescing import MAX_COALESCE_S, QUIET_ITERATIONS, CoalescingWindow


def iterations_until_closed(window: CoalescingWindow, waiting: int, now: float = 0.0) -> int:
    iterations = 1
    while window.is_open(now, waiting):
        iterations += 1
    return iterations


def test_quiet_iterations_close_it() -> None:
    assert iterations_until_closed(CoalescingWindow(0.0, 1), waiting=1) == QUIET_ITERATIONS


def test_an_arrival_restarts_the_count() -> None:
    window = CoalescingWindow(0.0, 1)
    for _ in range(QUIET_ITERATIONS - 1):
        assert window.is_open(0.0, 1)
    assert window.is_open(0.0, 2)
    assert iterations_until_closed(window, waiting=2) == QUIET_ITERATIONS


def test_time_closes_it_in_spite_of_arrivals() -> None:
    window = CoalescingWindow(5.0, 1)
    assert window.is_open(5.0 + 0.99 * MAX_COALESCE_S, 2)
    assert not window.is_open(5.0 + MAX_COALESCE_S, 3)
