"""Packings hold each sequence once, in rows that are long enough."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.batching.row_packing import Packing, best_fit_decreasing, first_fit

LENGTHS = [16, 48, 128]

Pack = Callable[[list[int], list[int]], Packing]

PACKINGS = [
    *(pytest.param(partial(best_fit_decreasing, preferred=p, lengths=LENGTHS), id=f"best fit {p}") for p in LENGTHS),
    pytest.param(partial(first_fit, length=128), id="first fit"),
]


@pytest.mark.parametrize("pack", PACKINGS)
@given(needs=st.lists(st.integers(4, 128), min_size=1, max_size=60))
def test_each_sequence_is_in_one_row(pack: Pack, needs: list[int]) -> None:
    packing = pack(needs, _descending(needs))
    assert sorted(sequence for row in packing.rows for sequence in row) == list(range(len(needs)))
    assert packing.used == [sum(needs[sequence] for sequence in row) for row in packing.rows]
    assert max(packing.used) <= 128


@pytest.mark.parametrize("pack", PACKINGS)
def test_only_ordered_sequences_are_packed(pack: Pack) -> None:
    packing = pack([9, 100, 8], [0, 2])
    assert sorted(sequence for row in packing.rows for sequence in row) == [0, 2]


@given(st.lists(st.integers(4, 128), min_size=1, max_size=60))
def test_best_fit_opens_a_row_only_if_none_has_room(needs: list[int]) -> None:
    packing = best_fit_decreasing(needs, _descending(needs), 128, LENGTHS)
    for earlier, row in enumerate(packing.rows):
        for later in packing.rows[earlier + 1 :]:
            assert packing.used[earlier] + needs[later[0]] > 128, (row, later)


@given(st.lists(st.integers(4, 128), min_size=1, max_size=60))
def test_best_fit_into_smallest_rows_needs_none_beyond_one_per_sequence(needs: list[int]) -> None:
    packing = best_fit_decreasing(needs, _descending(needs), LENGTHS[0], LENGTHS)
    rows = Counter(LENGTHS[bisect_left(LENGTHS, used)] for used in packing.used)
    assert rows <= Counter(LENGTHS[bisect_left(LENGTHS, need)] for need in needs)


def test_best_fit_takes_the_fullest_row_with_room() -> None:
    assert best_fit_decreasing([10, 12, 4, 6], [1, 0, 3, 2], 16, [16]).rows == [[1, 2], [0, 3]]


def test_long_sequences_start_the_smallest_row_that_holds_them() -> None:
    packing = best_fit_decreasing([40, 8, 17], [0, 2, 1], 16, LENGTHS)
    assert packing == Packing(rows=[[0, 1], [2]], used=[48, 17])


def test_best_fit_takes_the_most_urgent_of_equals_first() -> None:
    assert best_fit_decreasing([8] * 4, [0, 1, 2, 3], 16, [16]).rows == [[0, 1], [2, 3]]


def test_first_fit_keeps_the_order() -> None:
    assert first_fit([10, 12, 4, 6], [0, 1, 2, 3], 16) == Packing(rows=[[0, 2], [1], [3]], used=[14, 12, 6])


def _descending(needs: list[int]) -> list[int]:
    return sorted(range(len(needs)), key=needs.__getitem__, reverse=True)
