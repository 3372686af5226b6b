"""Three ways of cutting sequences into windows, which is where engines win or lose on natural lengths.

in arrival order    what a server does that batches whatever comes next
sorted by length    little padding, full batches, for what pads to the longest
one by one          no padding at all, and no batch either
"""

from __future__ import annotations

from collections.abc import Sequence

from electra_serve.tensors import Encoding

Batches = list[list[Encoding]]


def in_arrival_order(encodings: Sequence[Encoding], rows: int) -> Batches:
    """Batches of `rows`, as they come.

    Example:
        >>> from benchmarks.workload import encodings
        >>> [[len(row) for row in batch] for batch in in_arrival_order(encodings([5, 2, 9]), 2)]
        [[5, 2], [9]]
    """
    return [list(encodings[start : start + rows]) for start in range(0, len(encodings), rows)]


def sorted_by_length(encodings: Sequence[Encoding], rows: int) -> Batches:
    """Batches of `rows` neighbours in length.

    Example:
        >>> from benchmarks.workload import encodings
        >>> [[len(row) for row in batch] for batch in sorted_by_length(encodings([5, 2, 9]), 2)]
        [[2, 5], [9]]
    """
    return in_arrival_order(sorted(encodings, key=len), rows)


def one_by_one(encodings: Sequence[Encoding]) -> Batches:
    """Each by itself."""
    return [[encoding] for encoding in encodings]


def real_tokens(batches: Batches) -> int:
    """Positions that are not padding."""
    return sum(encoding.real_tokens for batch in batches for encoding in batch)


def padded_tokens(batches: Batches) -> int:
    """Positions computed where each batch is padded to its longest.

    Example:
        >>> from benchmarks.workload import encodings
        >>> padded_tokens(in_arrival_order(encodings([5, 2, 9]), 2))
        19
    """
    return sum(len(batch) * max(map(len, batch)) for batch in batches)
