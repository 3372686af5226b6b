"""Three ways to cut sequences into windows, which decide the speed at natural lengths.

in arrival order    as a server that batches the next requests
sorted by length    little padding in full batches, for encoders that pad to the longest
one by one          no padding at all, and no batch either
"""

from __future__ import annotations

from collections.abc import Sequence

from electra_serve.tensors import Encoding

Batches = list[list[Encoding]]


def in_arrival_order(encodings: Sequence[Encoding], rows: int) -> Batches:
    """Cuts batches of `rows` in their order.

    Example:
        >>> from benchmarks.workload import encodings
        >>> [[len(row) for row in batch] for batch in in_arrival_order(encodings([5, 2, 9]), 2)]
        [[5, 2], [9]]
    """
    return [list(encodings[start : start + rows]) for start in range(0, len(encodings), rows)]


def sorted_by_length(encodings: Sequence[Encoding], rows: int) -> Batches:
    """Cuts batches of `rows` of similar lengths.

    Example:
        >>> from benchmarks.workload import encodings
        >>> [[len(row) for row in batch] for batch in sorted_by_length(encodings([5, 2, 9]), 2)]
        [[2, 5], [9]]
    """
    return in_arrival_order(sorted(encodings, key=len), rows)


def one_by_one(encodings: Sequence[Encoding]) -> Batches:
    """Makes a batch of each."""
    return [[encoding] for encoding in encodings]


def real_tokens(batches: Batches) -> int:
    """Counts the positions that are not padding."""
    return sum(encoding.real_tokens for batch in batches for encoding in batch)


def padded_tokens(batches: Batches) -> int:
    """Counts the positions of batches that are padded to their longest sequence.

    Example:
        >>> from benchmarks.workload import encodings
        >>> padded_tokens(in_arrival_order(encodings([5, 2, 9]), 2))
        19
    """
    return sum(len(batch) * max(map(len, batch)) for batch in batches)
