"""Searches for the packing of sequences into rows whose batches cost least.

Best-fit decreasing is tried for the row lengths with the lowest estimates. First-fit in arrival order and one sequence
per row are tried unless a lower bound rules them out. The result is thus never worse than either.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import Final

from electra_serve.batching.row_batches import CHEAPER, RowBatches
from electra_serve.batching.row_packing import Packing, best_fit_decreasing, first_fit

# Limit of sequences packed by best-fit decreasing over all tries: few sequences try every row length, 128 try two.
PACKED_SEQUENCES: Final = 256
MIN_TRIES: Final = 2

# lower bound or estimate of a packing's seconds, and the function that makes it
_Candidate = tuple[float, Callable[[], Packing]]


class PackingSearch:
    """Packs sequences into rows."""

    def __init__(self, batches: RowBatches) -> None:
        self._batches = batches

    def cheapest(self, needs: list[int], order: list[int]) -> Packing:
        """Packs the sequences in `order`, longest first; `needs` has the positions of each."""
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
        tries = max(MIN_TRIES, PACKED_SEQUENCES // len(order))
        for estimate_s, length in sorted(estimates)[:tries]:
            yield estimate_s, partial(best_fit_decreasing, needs, order, length, lengths)
        yield single_s, partial(best_fit_decreasing, needs, order, lengths[0], lengths)
        arrivals = sorted(order)
        for kind in range(self._batches.kinds[ascending[-1]], len(lengths)):
            bound_s = self._batches.equal_seconds(kind, _least_rows(ascending, lengths[kind]))
            yield bound_s, partial(first_fit, needs, arrivals, lengths[kind])

    def _estimates(self, ascending: list[int]) -> tuple[list[tuple[float, int]], float]:
        lengths = self._batches.lengths
        shortest = ascending[0]
        sums = list(accumulate(ascending, initial=0))
        ends = [0, *(bisect_right(ascending, length) for length in lengths)]
        estimates = []
        longer_s, gaps = 0.0, 0
        for kind in reversed(range(bisect_left(lengths, shortest), len(lengths))):
            start, end = ends[kind], ends[kind + 1]
            filled_s = self._filled_seconds(kind, sums[end] - gaps, end - gaps // shortest, shortest)
            estimates.append((longer_s + filled_s, lengths[kind]))
            longer_s += self._batches.equal_seconds(kind, end - start)
            gaps += (end - start) * lengths[kind] - (sums[end] - sums[start])
        return estimates, longer_s

    def _filled_seconds(self, kind: int, positions: int, sequences: int, shortest: int) -> float:
        length = self._batches.lengths[kind]
        rows = max(-(-positions // length), -(-sequences // (length // shortest)))
        if rows <= 0:
            return 0.0
        last = self._batches.kinds[max(positions - (rows - 1) * length, shortest)]
        equal_seconds = self._batches.equal_seconds
        return min(equal_seconds(kind, rows), equal_seconds(kind, rows - 1) + equal_seconds(last, 1))


def _least_rows(ascending: list[int], length: int) -> int:
    rows = -(-sum(ascending) // length)  # by positions; below, a row holds k sequences longer than 1/(k + 1) of it
    for most in (1, 2, 3, length // ascending[0]):
        longer = len(ascending) - bisect_right(ascending, length // (most + 1))
        rows = max(rows, -(-longer // most))
    return rows
