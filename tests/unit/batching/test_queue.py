"""The queue admits whole requests, in a fair order, with consistent sums."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from electra_serve.batching.admission import SHARE, QueueLimits
from electra_serve.batching.queue import QueueEntry, RequestQueue
from electra_serve.errors import Overloaded, PayloadTooLarge


@dataclass(slots=True, eq=False, kw_only=True)
class Named(QueueEntry):
    name: str


def entry(name: str, *, length: int = 10, client: str = "a", priority: int = 1, deadline: float | None = None) -> Named:
    return Named(name=name, length=length, work_s=length / 100, client=client, priority=priority, deadline=deadline)


def queue(max_sequences: int = 100, max_tokens: int = 10_000) -> RequestQueue[Named]:
    return RequestQueue(QueueLimits(max_sequences, max_tokens))


def order(waiting: RequestQueue[Named]) -> list[str]:
    return [entry.name for entry in waiting.window(1000)]


def test_sequence_bound_from_both_sides() -> None:
    waiting = queue(max_sequences=3)
    waiting.admit([entry("1"), entry("2"), entry("3")], now=0)
    with pytest.raises(Overloaded):
        waiting.admit([entry("4")], now=0)
    assert waiting.sequences == 3


def test_token_bound_from_both_sides() -> None:
    waiting = queue(max_tokens=20)
    waiting.admit([entry("1", length=19)], now=0)
    with pytest.raises(Overloaded):
        waiting.admit([entry("2", length=2, client="b")], now=0)
    waiting.admit([entry("2", length=1, client="b")], now=0)
    assert waiting.tokens == 20


def test_a_request_is_admitted_whole_or_not_at_all() -> None:
    waiting = queue(max_sequences=3)
    waiting.admit([entry("1")], now=0)
    with pytest.raises(Overloaded):
        waiting.admit([entry("2"), entry("3"), entry("4")], now=0)
    assert (waiting.sequences, waiting.tokens, waiting.work_s) == (1, 10, 0.1)


def test_a_request_over_the_limits_gets_no_retry_time() -> None:
    waiting = queue(max_sequences=2, max_tokens=30)
    with pytest.raises(PayloadTooLarge, match="at most 2 sequences and 30 tokens; got 3 and 30"):
        waiting.admit([entry("1"), entry("2"), entry("3")], now=0)
    with pytest.raises(PayloadTooLarge):
        waiting.admit([entry("1", length=31)], now=0)
    waiting.admit([entry("1", length=30)], now=0)


def test_a_rejection_has_a_retry_time() -> None:
    waiting = queue(max_sequences=2)
    waiting.admit([entry("1", length=150), entry("2", length=50)], now=0)
    with pytest.raises(Overloaded) as rejection:
        waiting.admit([entry("3")], now=0)
    assert rejection.value.retry_after_s == pytest.approx(2.0)


def test_a_start_after_the_deadline_is_rejected_from_both_sides() -> None:
    waiting = queue()
    waiting.admit([entry("1", length=100), entry("2", length=50)], now=0)
    with pytest.raises(Overloaded, match=r"queue wait is 1\.7 s, the deadline is in 1\.6 s") as no:
        waiting.admit([entry("late", deadline=11.6)], now=10, busy_s=0.2)
    assert no.value.retry_after_s == pytest.approx(0.1)
    waiting.admit([entry("in time", deadline=11.71)], now=10, busy_s=0.2)
    assert waiting.sequences == 3


def test_only_earlier_entries_count_against_a_deadline() -> None:
    waiting = queue()
    waiting.admit([entry(f"heavy {i}", length=100, client="heavy") for i in range(5)], now=0)
    waiting.admit([entry("newcomer", client="new", deadline=1.1)], now=0)  # behind one of the five
    waiting.admit([entry("urgent", client="heavy", priority=0, deadline=0.01)], now=0)
    for stalled in (
        entry("heavy 6", client="heavy", deadline=5.0),
        entry("low", client="new", priority=2, deadline=5.0),
    ):
        with pytest.raises(Overloaded):
            waiting.admit([stalled], now=0)


def test_the_last_sequence_of_a_request_must_have_its_turn_in_time() -> None:
    waiting = queue()
    waiting.admit([entry(f"{i}", length=100, client="a") for i in range(3)], now=0)
    mine = [entry("x", length=100, client="b", deadline=1.5), entry("y", length=100, client="b", deadline=1.5)]
    with pytest.raises(Overloaded, match="queue wait is 2 s"):
        waiting.admit(mine, now=0)
    waiting.admit(mine[:1], now=0)


def test_an_immediate_start_is_never_too_late() -> None:
    queue().admit([entry("slow", length=10_000, deadline=0.001)], now=0)


def test_an_engine_that_is_busy_for_longer_is_too_late_for_everyone() -> None:
    waiting = queue()
    with pytest.raises(Overloaded):
        waiting.admit([entry("1", deadline=1.0)], now=0, busy_s=1.001)
    waiting.admit([entry("1", deadline=1.0)], now=0, busy_s=1.0)


def test_work_ahead_is_summed_again_after_each_change() -> None:
    waiting = queue()
    first = [entry("1", length=100, client="a")]
    waiting.admit(first, now=0)
    stalled = entry("2", client="a", deadline=0.5)
    with pytest.raises(Overloaded):
        waiting.admit([stalled], now=0)
    waiting.take(first)
    waiting.admit([stalled], now=0)


def test_priority_goes_first_then_arrival() -> None:
    waiting = queue()
    for item in (entry("low", priority=2), entry("normal"), entry("high", priority=0), entry("normal 2")):
        waiting.admit([item], now=0)
    assert order(waiting) == ["high", "normal", "normal 2", "low"]


def test_a_heavy_client_waits_behind_itself() -> None:
    waiting = queue()
    waiting.admit([entry(f"heavy {i}", client="heavy") for i in range(20)], now=0)
    waiting.admit([entry("light", client="light")], now=1)
    assert order(waiting).index("light") == 1


def test_fairness_counts_positions_not_rows() -> None:
    waiting = queue()
    waiting.admit([entry(f"long {i}", client="long", length=100) for i in range(3)], now=0)
    waiting.admit([entry(f"short {i}", client="short", length=10) for i in range(11)], now=0)
    # Ten short rows are as many positions as one long row.
    assert order(waiting).index("long 1") == 11


def test_newcomers_are_not_behind_rows_that_rode_along() -> None:
    waiting = queue()
    heavy = [entry(f"heavy {i}", client="heavy") for i in range(10)]
    waiting.admit(heavy, now=0)
    waiting.take([heavy[0], heavy[5]])
    waiting.admit([entry("new", client="new")], now=1)
    assert order(waiting)[0] == "new"


def test_a_served_client_gets_no_second_turn_before_the_others_first() -> None:
    waiting = queue()
    mine = [entry("mine 0", client="me", length=50), entry("mine 1", client="me")]
    waiting.admit(mine, now=0)
    waiting.take(mine[:1])
    waiting.admit([entry("yours", client="you")], now=1)
    assert order(waiting) == ["yours", "mine 1"]


def test_deadline_from_both_sides() -> None:
    waiting = queue()
    waiting.admit([entry("hurried", deadline=5.0), entry("patient")], now=0)
    assert waiting.expire(4.999) == []
    assert [gone.name for gone in waiting.expire(5.0)] == ["hurried"]
    assert order(waiting) == ["patient"]


def test_cancel_ignores_taken_entries() -> None:
    waiting = queue()
    entries = [entry("1"), entry("2")]
    waiting.admit(entries, now=0)
    waiting.take(entries[:1])
    waiting.cancel(entries)
    waiting.cancel(entries)
    assert (waiting.sequences, waiting.tokens) == (0, 0)


def test_oldest_wait() -> None:
    waiting = queue()
    assert waiting.oldest_wait_s(50) == 0
    waiting.admit([entry("1")], now=10)
    waiting.admit([entry("2", priority=0)], now=12)
    assert waiting.oldest_wait_s(15) == 5


def test_clients_that_left_are_forgotten() -> None:
    waiting = queue(max_sequences=10_000)
    waiting.admit([entry("stays", priority=2)], now=0)
    for number in range(1000):
        visitor = entry("visit", client=f"client {number}")
        waiting.admit([visitor], now=0)
        waiting.take([visitor])
    assert len(waiting._client_tags) < 100


@dataclass(frozen=True)
class Plan:
    lengths: list[int]
    client: str
    priority: int


plans = st.builds(Plan, st.lists(st.integers(1, 50), min_size=1, max_size=4), st.sampled_from("abc"), st.integers(0, 2))


class QueueMachine(RuleBasedStateMachine):
    """Any sequence of calls keeps sums and order, and removes each entry exactly once."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: RequestQueue[Named] = RequestQueue(QueueLimits(20, 500))
        self.waiting: list[Named] = []
        self.taken: list[Named] = []
        self.count = 0
        self.now = 0.0

    @rule(plan=plans, time_left_s=st.none() | st.integers(6, 9))  # all possible work takes 5 s
    def admit(self, plan: Plan, time_left_s: int | None) -> None:
        deadline = None if time_left_s is None else self.now + time_left_s
        entries = [
            entry(f"{self.count + i:06}", length=length, client=plan.client, priority=plan.priority, deadline=deadline)
            for i, length in enumerate(plan.lengths)
        ]
        self.count += len(entries)
        tokens = sum(plan.lengths)
        free_sequences = 20 - len(self.waiting) - len(entries)
        free_tokens = 500 - sum(e.length for e in self.waiting) - tokens
        held = [e.length for e in self.waiting if e.client == plan.client]
        shared = len(held) + len(entries) <= SHARE * free_sequences and sum(held) + tokens <= SHARE * free_tokens
        if free_sequences >= 0 and free_tokens >= 0 and (shared or not held):
            self.queue.admit(entries, self.now)
            self.waiting += entries
        else:
            with pytest.raises(Overloaded):
                self.queue.admit(entries, self.now)

    @rule(window=st.integers(1, 8), keep=st.integers(1, 4))
    def take(self, window: int, keep: int) -> None:
        chosen = list(self.queue.window(window))[::keep]
        if chosen:
            self.queue.take(chosen)
            self.taken += chosen
            self.waiting = [e for e in self.waiting if e not in chosen]

    @rule(which=st.integers(0, 30))
    def cancel(self, which: int) -> None:
        gone = self.waiting[which : which + 2]
        self.queue.cancel(gone + self.taken[:1])
        self.waiting = [e for e in self.waiting if e not in gone]

    @rule(plan=plans, time_left_s=st.floats(0.01, 5), busy_s=st.floats(0, 1))
    def admit_if_in_time(self, plan: Plan, time_left_s: float, busy_s: float) -> None:
        """A request rejected for its deadline alone would have started later, without later arrivals."""
        deadline = self.now + time_left_s
        lone = entry(
            f"{self.count:06}", length=plan.lengths[0], client=plan.client, priority=plan.priority, deadline=deadline
        )
        entries = [lone]
        try:
            self.queue.admit(entries, self.now, busy_s=busy_s)
        except Overloaded:
            return
        self.count += 1
        self.waiting += entries
        ahead = list(self.queue.window(1000)).index(entries[0])
        wait_s = busy_s + sum(e.work_s for e in self.queue.window(ahead))
        assert wait_s <= time_left_s + 1e-6

    @rule(seconds=st.integers(0, 3))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        expired = self.queue.expire(self.now)
        assert all(e.deadline is not None and e.deadline <= self.now for e in expired)
        self.waiting = [e for e in self.waiting if e not in expired]
        assert all(e.deadline is None or e.deadline > self.now for e in self.waiting)

    @invariant()
    def sums_add_up(self) -> None:
        assert self.queue.sequences == len(self.waiting)
        assert self.queue.tokens == sum(e.length for e in self.waiting)
        assert self.queue.work_s == pytest.approx(sum(e.work_s for e in self.waiting))

    @invariant()
    def order_is_kept(self) -> None:
        shown = list(self.queue.window(1000))
        assert sorted(e.name for e in shown) == sorted(e.name for e in self.waiting)
        assert [e.priority for e in shown] == sorted(e.priority for e in shown)
        for client in "abc":
            for priority in range(3):
                mine = [e.name for e in shown if (e.client, e.priority) == (client, priority)]
                assert mine == sorted(mine)


TestQueueMachine = QueueMachine.TestCase


@given(st.lists(plans, max_size=10))
def test_a_full_window_is_everything_in_order_of_turn(requests: list[Plan]) -> None:
    waiting: RequestQueue[Named] = RequestQueue(QueueLimits(10_000, 10_000))
    for number, plan in enumerate(requests):
        waiting.admit(
            [entry(str(number), length=n, client=plan.client, priority=plan.priority) for n in plan.lengths], now=0
        )
    whole = waiting.window(10_000)
    assert [e.turn for e in whole] == sorted(e.turn for e in whole)
    assert list(waiting.window(3)) == list(whole)[:3]
