"""Bytes made wrong: what a broken or hostile client sends, from what a good one does."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

MOST: Final = 4
"""Mutations of one input."""
SPLICE: Final = 64
HARD: Final[Sequence[bytes]] = (
    b"\xff" * 10,  # the longest varint
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff\x0f",
    b"NaN",
    b"1e999",
    b"-0.0",
    b"9" * 40,
    b'"\\ud800"',
    b"[" * 200,
    b"null",
    b"\r\n\r\n",
)

Mutation = Callable[[bytearray, random.Random], None]
"""Changes bytes, at least one, in place."""


def _flip_bit(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _replace(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(len(data))] = dice.randrange(256)


def _cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def _remove(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    del data[at : at + dice.randrange(SPLICE)]


def _repeat(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at:at] = data[at : at + dice.randrange(SPLICE)] * dice.randrange(1, 8)


def _insert_noise(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at:at] = dice.randbytes(dice.randrange(1, 8))


def _insert_hard(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at:at] = dice.choice(HARD)


MUTATIONS: Final[Sequence[Mutation]] = (_flip_bit, _replace, _cut, _remove, _repeat, _insert_noise, _insert_hard)


def mutated(data: bytes, seed: int) -> bytes:
    """The same bytes for the same seed.

    Example:
        >>> mutated(b"a good request", 1) == mutated(b"a good request", 1) != b"a good request"
        True
    """
    dice = random.Random(seed)
    made = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, MOST))):  # mostly one: with many, little gets past the parser
        if made:
            dice.choice(MUTATIONS)(made, dice)
    return bytes(made)
