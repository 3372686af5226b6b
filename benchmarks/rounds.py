"""Interleaved sampling: one sample of each case, then the next of each.

What is compared is never measured minutes apart, and the order of the cases turns by one each round, so that none
always comes after the same other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

Sample = TypeVar("Sample")


def interleave(cases: Mapping[str, Callable[[], Sample]], rounds: int) -> dict[str, list[Sample]]:
    """Samples every case `rounds` times.

    Args:
        cases: What takes one sample, by name.
        rounds: How many samples of each.

    Returns:
        The samples of each case, in the order they were taken.

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
    """`names`, beginning with the one whose round it is.

    Example:
        >>> list(turned(["a", "b", "c"], 4))
        ['b', 'c', 'a']
    """
    start = number % len(names) if names else 0
    yield from names[start:]
    yield from names[:start]
