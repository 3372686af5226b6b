"""The limit of connections: which one makes room, and when the newcomer has to go."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import pytest

from electra_serve.api.connections import Connection, ConnectionTable, Phase
from electra_serve.observability.connections import LimitAction

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"


@dataclass
class Side:
    """A table, and what it did."""

    limit: int
    surplus: int = 2
    actions: list[LimitAction] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    table: ConnectionTable = field(init=False)

    def __post_init__(self) -> None:
        self.table = ConnectionTable(self.limit, surplus=self.surplus, on_limit=self.actions.append)

    def admit(self, address: str, phase: Phase = Phase.IDLE, name: str = "") -> Connection:
        connection = self.table.admit(address, partial(self.closed.append, name or address))
        assert connection is not None
        self.table.move(connection, phase)
        return connection


def test_below_the_limit_nothing_closes() -> None:
    side = Side(limit=2)
    assert not any(side.admit(address).over_limit for address in (A, B))
    assert (side.closed, side.actions) == ([], [])


def test_the_longest_idle_connection_makes_room() -> None:
    side = Side(limit=3)
    first = side.admit(A, name="first")
    for name in ("second", "third"):
        side.admit(A, name=name)
    side.table.move(first, Phase.WORKING)
    side.table.move(first, Phase.IDLE)
    side.admit(A)
    assert side.closed == ["second"]
    assert side.actions == [LimitAction.CLOSED_IDLE]


def test_the_address_with_most_idle_connections_makes_room_first() -> None:
    side = Side(limit=4)
    side.admit(A)
    for _ in range(3):
        side.admit(B)
    for _ in range(2):
        side.admit(C)
    assert side.closed == [B, B]


def test_one_that_is_working_never_closes() -> None:
    side = Side(limit=1, surplus=1)
    side.admit(A, Phase.WORKING)
    assert side.admit(B).over_limit
    assert side.admit(B).over_limit, "it replaces the one before, which was over the limit too"
    assert side.closed == [B]


def test_over_the_second_limit_a_newcomer_is_not_admitted() -> None:
    side = Side(limit=1, surplus=1)
    for _ in range(2):
        side.admit(A, Phase.WORKING)
    assert side.table.admit(A, lambda: None) is None
    assert side.actions == [LimitAction.OVER_LIMIT, LimitAction.CLOSED_NEW]
    assert len(side.table) == 2


@pytest.mark.parametrize(("others", "makes_room"), [(0, True), (1, True), (2, False)])
def test_an_address_that_holds_much_more_unfinished_requests_makes_room(others: int, makes_room: bool) -> None:
    side = Side(limit=5 + others)
    for _ in range(5):
        side.admit(A, Phase.RECEIVING)
    for _ in range(others):
        side.admit(B, Phase.RECEIVING)
    assert side.admit(B).over_limit != makes_room
    assert side.closed == [A] * makes_room


def test_an_address_makes_no_room_for_itself_by_ending_its_requests() -> None:
    side = Side(limit=5)
    for _ in range(5):
        side.admit(A, Phase.RECEIVING)
    assert side.admit(A).over_limit
    assert side.closed == []


def test_one_that_closes_counts_until_it_has_ended_but_is_not_closed_twice() -> None:
    side = Side(limit=1)
    old = side.admit(A)
    side.admit(B)
    assert len(side.table) == 2
    side.table.move(old, Phase.WORKING)
    side.table.remove(old)
    assert len(side.table) == 1
    assert side.closed == [A]


def test_the_largest_group_is_found_after_any_changes() -> None:
    dice, side = random.Random(0), Side(limit=50, surplus=0)
    held: dict[int, Connection] = {}
    closed: list[int] = []
    for number in range(3000):
        idle = Counter(c.address for c in held.values() if c.phase is Phase.IDLE)
        connection = side.table.admit(dice.choice((A, B, C)), partial(closed.append, number))
        if connection is not None:
            held[number] = connection
        for victim in closed:
            assert idle[held[victim].address] == max(idle.values())
            side.table.remove(held.pop(victim))
        closed.clear()
        for one in dice.sample(sorted(held), k=len(held) // 3):
            side.table.move(held[one], dice.choice((Phase.IDLE, Phase.WORKING)))
        assert len(side.table) == len(held)
