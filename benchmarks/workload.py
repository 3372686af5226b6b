"""Deterministic sequences: lengths of a natural mix or of one kind, and ids to fill them.

The natural mix has the percentiles of `PERCENTILES`. Lengths are its quantiles at evenly spaced ranks, so any number of
sequences has the same mix. Only their order is random, from a fixed seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from electra_serve.tensors import Encoding

PERCENTILES: Final = ((0, 4), (5, 10), (25, 18), (50, 26), (75, 45), (90, 91), (95, 144), (99, 262), (100, 512))
"""Tokens of a text, [CLS] and [SEP] included, by percentile."""
FIRST_ID: Final = 1000
"""Lower ids are special and unused pieces of ELECTRA's vocabulary."""
VOCABULARY: Final = 30_522
CLS_ID: Final = 101
SEP_ID: Final = 102
SEED: Final = 4

Ids = NDArray[np.int32]


def natural_lengths(count: int, *, seed: int = SEED) -> list[int]:
    """Returns `count` lengths of the natural mix in random order.

    The logarithm of the length is linear between two percentiles.

    Example:
        >>> lengths = natural_lengths(1000)
        >>> min(lengths) >= 4, max(lengths) <= 512, sorted(lengths)[500]
        (True, True, 26)
        >>> natural_lengths(3) == natural_lengths(3)
        True
    """
    ranks = (np.arange(count) + 0.5) / count * 100
    percents, lengths = zip(*PERCENTILES, strict=True)
    drawn = np.exp(np.interp(ranks, percents, np.log(lengths)))  # (count,)
    shuffled = np.random.default_rng(seed).permutation(np.floor(drawn + 1e-9).astype(int))
    return [int(length) for length in shuffled]


def token_ids(lengths: Sequence[int], *, seed: int = SEED) -> list[Ids]:
    """Makes a sequence of each length: [CLS], random words, [SEP].

    Example:
        >>> [row.tolist() for row in token_ids([1, 2])]
        [[101], [101, 102]]
        >>> token_ids([5])[0].dtype.name, len(token_ids([5])[0])
        ('int32', 5)
    """
    generator = np.random.default_rng(seed)
    return [_sequence(length, generator) for length in lengths]


def encodings(lengths: Sequence[int], *, seed: int = SEED) -> list[Encoding]:
    """Makes `token_ids` as the service's own sequences: one segment, nothing masked."""
    return [encoding(row) for row in token_ids(lengths, seed=seed)]


def encoding(row: Ids) -> Encoding:
    """Makes the service's own sequence of `row`: one segment, nothing masked."""
    return Encoding(row, np.zeros_like(row), np.ones_like(row), compute_length=len(row), real_tokens=len(row))


def _sequence(length: int, generator: np.random.Generator) -> Ids:
    row = generator.integers(FIRST_ID, VOCABULARY, length, dtype=np.int32)
    row[0] = CLS_ID
    if length > 1:
        row[-1] = SEP_ID
    return row
