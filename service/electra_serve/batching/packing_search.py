"""Search for the packing of sequences into rows whose batches cost least.

Best-fit decreasing is tried for the row lengths with the lowest estimates: long sequences take rows of their own, short
ones fill the gaps, and what is left fills rows of that length but for a last one. A packing costs what
`electra_serve.batching.row_batches` finds for its rows, so a half-empty row gets a shorter shape.

One sequence per row and first-fit in arrival order are packed too, unless a lower bound shows that they cost no less:
the search never returns anything worse than those.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import Final

from electra_serve.batching.row_batches import CHEAPER, RowBatches
from electra_serve.batching.row_packing import Packing, best_fit_decreasing, first_fit, one_per_row

PACKED_SEQUENCES: Final = 256
"""Most sequences to pack by best-fit decreasing in all tries: few try every row length, 128 two."""
LEAST_TRIES: Final = 2

_Candidate = tuple[float, Callable[[], Packing]]
"""Seconds that a packing takes at best, estimated or bounded from below, and the way to get it."""


class PackingSearch:
    """Packs sequences into rows at little cost.

    Args:
        batches: Cost of rows.
    """

    def __init__(self, batches: RowBatches) -> None:
        self._batches = batches

    def cheapest(self, needs: list[int], order: list[int]) -> Packing:
        """Returns the cheapest of the packings that are worth a try.

        Args:
            needs: Positions that each sequence takes.
            order: The sequences to pack, longest first; at least one, and none longer than the longest row.
        """
        least_s = math.inf
        for bound_s, pack in self._candidates(needs, order):
            if bound_s < least_s * CHEAPER:
                packing = pack()
                seconds = self._seconds(packing)
                if seconds < least_s:
                    least_s, cheapest = seconds, packing
        return cheapest

    def _seconds(self, packing: Packing) -> float:
        kinds = self._batches.kinds
        return self._batches.seconds(sorted([kinds[used] for used in packing.used]))

    def _candidates(self, needs: list[int], order: list[int]) -> Iterator[_Candidate]:
        lengths = self._batches.lengths
        ascending = [needs[sequence] for sequence in reversed(order)]
        estimates, single_s = self._estimates(ascending)
        tries = max(LEAST_TRIES, PACKED_SEQUENCES // len(order))
        for estimate_s, length in sorted(estimates)[:tries]:
            yield estimate_s, partial(best_fit_decreasing, needs, order, length, lengths)
        yield single_s, partial(one_per_row, needs, order)
        yield from self._first_fits(needs, order)

    def _first_fits(self, needs: list[int], order: list[int]) -> Iterator[_Candidate]:
        """First-fit in arrival order, for each row length that holds the longest sequence."""
        lengths = self._batches.lengths
        arrivals = sorted(order)
        total = sum([needs[sequence] for sequence in order])
        for kind in range(self._batches.kinds[needs[order[0]]], len(lengths)):
            least_s = self._batches.equal_seconds(kind, -(-total // lengths[kind]))
            yield least_s, partial(first_fit, needs, arrivals, lengths[kind])

    def _estimates(self, ascending: list[int]) -> tuple[list[tuple[float, int]], float]:
        """Estimates seconds of best-fit decreasing.

        Returns:
            Seconds and row length, for each row length; and the seconds of one sequence per row.
        """
        lengths = self._batches.lengths
        sums = list(accumulate(ascending, initial=0))
        ends = [0, *(bisect_right(ascending, length) for length in lengths)]
        estimates = []
        longer_s, gaps = 0.0, 0
        for kind in reversed(range(len(lengths))):
            start, end = ends[kind], ends[kind + 1]
            if not end:
                break
            estimates.append((longer_s + self._filled_seconds(kind, max(0, sums[end] - gaps)), lengths[kind]))
            longer_s += self._batches.equal_seconds(kind, end - start)
            gaps += (end - start) * lengths[kind] - (sums[end] - sums[start])
        return estimates, longer_s

    def _filled_seconds(self, kind: int, positions: int) -> float:
        """Seconds of full rows of one kind for so many positions, with what is left in the smallest row for it."""
        equal_seconds = self._batches.equal_seconds
        full, left = divmod(positions, self._batches.lengths[kind])
        if not left:
            return equal_seconds(kind, full)
        return min(
            equal_seconds(kind, full + 1), equal_seconds(kind, full) + equal_seconds(self._batches.kinds[left], 1)
        )
