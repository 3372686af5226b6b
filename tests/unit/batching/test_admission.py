"""Admission: a bounded queue with a share for each client, and rejections with a retry time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.batching.admission import MIN_WAIT_S, SHARE, SPREAD, Admission, QueueLimits
from electra_serve.errors import Overloaded, PayloadTooLarge


def admission(max_sequences: int = 100, max_tokens: int = 10_000, *, engines: int = 1) -> Admission:
    return Admission(QueueLimits(max_sequences, max_tokens), engines=engines)


def let_in(room: Admission, client: str, *, length: int = 1, work_s: float = 0.01) -> bool:
    """Adds one sequence if it is admitted."""
    try:
        room.ensure_capacity(client, 1, length)
    except Overloaded:
        return False
    room.add(client, length, work_s)
    return True


def fill(room: Admission, *clients: str, length: int = 1) -> list[int]:
    """Lets the clients send in turn until all are rejected; returns the number of admitted sequences of each."""
    got = dict.fromkeys(clients, 0)
    room_left = True
    while room_left:
        outcomes = [let_in(room, client, length=length) for client in clients]
        room_left = any(outcomes)
        for client in clients:
            got[client] = room._clients[client].sequences
    return list(got.values())


@pytest.mark.parametrize(("clients", "each"), [("a", 80), ("ab", 44), ("abc", 30)])
def test_clients_that_never_stop_leave_room(clients: str, each: int) -> None:
    room = admission()
    assert all(abs(got - each) <= 1 for got in fill(room, *clients))
    assert let_in(room, "new")


def test_the_share_of_sequences_from_both_sides() -> None:
    room = admission()
    assert fill(room, "heavy") == [80]
    with pytest.raises(Overloaded, match="at most 4 times the free capacity"):
        room.ensure_capacity("heavy", 1, 1)
    room.remove("heavy", 1, 0.01)
    room.ensure_capacity("heavy", 1, 1)


def test_the_share_of_positions_from_both_sides() -> None:
    room = admission(max_tokens=1000)
    room.add("heavy", 700, 1.0)
    room.ensure_capacity("heavy", 1, 100)
    with pytest.raises(Overloaded):
        room.ensure_capacity("heavy", 1, 101)


def test_a_client_without_queued_sequences_may_fill_the_queue() -> None:
    room = admission()
    room.ensure_capacity("a", 100, 10_000)
    room.add("b", 10, 0.1)
    room.ensure_capacity("a", 99, 9_990)
    with pytest.raises(Overloaded):
        room.ensure_capacity("a", 100, 100)


def test_a_request_over_the_limits_gets_no_retry_time() -> None:
    with pytest.raises(PayloadTooLarge):
        admission().ensure_capacity("a", 101, 1)
    with pytest.raises(PayloadTooLarge):
        admission().ensure_capacity("a", 1, 10_001)


def test_reserved_sequences_count_as_waiting_for_admission_alone() -> None:
    room = admission()
    room.reserve("a", 79)
    room.ensure_capacity("a", 1, 1)
    for client, sequences in (("a", 2), ("b", 22)):
        with pytest.raises(Overloaded):
            room.ensure_capacity(client, sequences, sequences)
    assert (room.total.sequences, room.total.tokens, room.clients) == (0, 0, 0)
    room.reserve("a", -79)
    room.ensure_capacity("a", 100, 100)


def rejection(room: Admission, client: str, sequences: int = 1) -> Overloaded:
    with pytest.raises(Overloaded) as rejected:
        room.ensure_capacity(client, sequences, sequences)
    return rejected.value


def test_retry_after_is_the_time_to_drain_a_full_queue() -> None:
    room = admission(max_sequences=2, engines=2)
    for client in "ab":
        room.add(client, 10, 3.0)
    assert rejection(room, "c").retry_after_s == 3.0


def test_a_client_over_its_share_comes_back_when_its_own_part_is_done() -> None:
    room = admission(max_sequences=10)
    for _ in range(7):
        room.add("heavy", 1, 1.0)
    room.add("light", 1, 1.0)
    # Its 7 s take up to 14 s in turns with another client, but the whole queue takes 8 s.
    assert rejection(room, "heavy").retry_after_s == 8.0
    room = admission(max_sequences=100)
    for number in range(40):
        for client in ("a", "b"):
            room.add(client, 1, 1.0)
        room.add(f"light {number % 2}", 1, 0.0)
    assert rejection(room, "a", sequences=5).retry_after_s == 80.0


def test_retry_after_has_a_minimum() -> None:
    room = admission(max_sequences=1)
    room.add("a", 1, 0.0)
    assert rejection(room, "b").retry_after_s == MIN_WAIT_S


def test_clients_rejected_together_do_not_retry_together() -> None:
    room = admission(max_sequences=1)
    room.add("a", 1, 8.0)
    waits = sorted(rejection(room, "b").retry_after_s or 0.0 for _ in range(100))
    assert waits[0] == 8.0
    assert waits[-1] < 8.0 * (1 + SPREAD)
    gaps = [later - sooner for sooner, later in pairwise(waits)]
    assert max(gaps) < 8.0 * SPREAD / 100 * 3


def test_clients_that_wait_for_nothing_are_forgotten() -> None:
    room = admission()
    for number in range(1000):
        room.add(f"client {number}", 1, 0.1)
        room.remove(f"client {number}", 1, 0.1)
    assert (room.clients, room.total.sequences, room.total.tokens, room.total.work_s) == (0, 0, 0, 0.0)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 400), st.booleans()), max_size=200))
def test_no_client_that_holds_something_ever_passes_its_share(steps: list[tuple[str, int, bool]]) -> None:
    room = admission(max_sequences=30, max_tokens=3000)
    inside: list[tuple[str, int]] = []
    for client, length, leave in steps:
        if leave and inside:
            room.remove(*inside.pop(0), 0.01)
        held_before = client in room._clients
        if let_in(room, client, length=length):
            inside.append((client, length))
            held, total = room._clients[client], room.total
            if held_before:
                assert held.sequences <= SHARE * (30 - total.sequences)
                assert held.tokens <= SHARE * (3000 - total.tokens)
        assert room.total.sequences == len(inside) <= 30
        assert room.total.tokens == sum(tokens for _, tokens in inside) <= 3000
        assert room.clients == len({name for name, _ in inside})
