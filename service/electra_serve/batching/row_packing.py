"""Packs sequences into rows: bin packing, with rows as the bins.

Best-fit decreasing puts the longest remaining sequence into the fullest row that holds it. It needs at most 11/9 of the
optimal number of rows plus one (D. S. Johnson, "Near-optimal bin packing algorithms", 1973).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_ROW_BITS: Final = 32
_ROW_MASK: Final = (1 << _ROW_BITS) - 1


@dataclass(frozen=True, slots=True)
class Packing:
    """Sequences of each row, and the positions that they use."""

    rows: list[list[int]]
    used: list[int]


def best_fit_decreasing(needs: Sequence[int], order: Sequence[int], preferred: int, lengths: Sequence[int]) -> Packing:
    """Packs into rows of the `preferred` length; a longer sequence starts the smallest row that holds it.

    `order` has the sequences by descending need of positions, `lengths` the row lengths in ascending order.

    Example:
        >>> best_fit_decreasing([5, 3, 5, 3], [0, 2, 1, 3], 8, [4, 8])
        Packing(rows=[[0, 1], [2, 3]], used=[8, 8])
    """
    rows: list[list[int]] = []
    used: list[int] = []  # the row's length, until the free positions are subtracted
    open_rows: list[int] = []  # free positions and row index in one sortable number; ascending
    for sequence in order:
        taken = needs[sequence] << _ROW_BITS
        fullest = bisect_left(open_rows, taken)
        if fullest < len(open_rows):
            entry = open_rows.pop(fullest)
        else:
            length = max(preferred, lengths[bisect_left(lengths, needs[sequence])])
            entry = length << _ROW_BITS | len(rows)
            rows.append([])
            used.append(length)
        rows[entry & _ROW_MASK].append(sequence)
        insort(open_rows, entry - taken)
    for entry in open_rows:
        used[entry & _ROW_MASK] -= entry >> _ROW_BITS
    return Packing(rows, used)


def first_fit(needs: Sequence[int], order: Sequence[int], length: int) -> Packing:
    """Packs each sequence, in the given order, into the first row of `length` that holds it.

    Example:
        >>> first_fit([5, 4, 3, 4], [0, 1, 2, 3], 8)
        Packing(rows=[[0, 2], [1, 3]], used=[8, 8])
    """
    rows: list[list[int]] = []
    used: list[int] = []
    for sequence in order:
        most = length - needs[sequence]
        row = next((row for row, positions in enumerate(used) if positions <= most), len(rows))
        if row == len(rows):
            rows.append([])
            used.append(0)
        rows[row].append(sequence)
        used[row] += needs[sequence]
    return Packing(rows, used)
