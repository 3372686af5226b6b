"""Interleaved sampling: one sample of each case, then the next of each.

Compared cases are never measured minutes apart. Their order turns by one each round, so that none always follows the
same other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

Sample = TypeVar("Sample")


def interleave(cases: Mapping[str, Callable[[], Sample]], rounds: int) -> dict[str, list[Sample]]:
    """Samples every case `rounds` times.

    Args:
        cases: Functions that take one sample, by name.
        rounds: Number of samples of each.

    Returns:
        The samples of each case, in their order.

    Example:
        >>> taken = []
        >>> interleave({"a": lambda: taken.append("a"), "b": lambda: taken.append("b")}, rounds=2)["a"]
        [None, None]
        >>> taken
        ['a', 'b', 'b', 'a']
    """
    samples: dict[str, list[Sample]] = {name: [] for name in cases}
    for number in range(rounds):
        for name in turned(list(cases), number):
            samples[name].append(cases[name]())
    return samples


def turned(names: Sequence[str], number: int) -> Iterator[str]:
    """Yields `names`, beginning with the one of the round.

    Example:
        >>> list(turned(["a", "b", "c"], 4))
        ['b', 'c', 'a']
    """
    start = number % len(names) if names else 0
    yield from names[start:]
    yield from names[:start]
