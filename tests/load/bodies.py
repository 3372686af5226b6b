"""JSON bodies made wrong: members are missing, repeated, of another type, or out of range."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

import orjson

from tests.load.mutations import mutated

ODD: Final[tuple[object, ...]] = (
    None,
    True,
    0,
    -1,
    2**31,
    2**63 - 1,
    1.5,
    1e300,
    "",
    "\x00",
    "e\u0301 日本 😀",
    "a word " * 200,
    [],
    [[]],
    [None],
    ["a", 1],
    [[7, 8], ["a"]],
    [-1],
    [10**6],
    ["a"] * 3000,
    [["a", "b"], ["c"]],
    {},
    {"text": "a"},
    {"text": None},
    [{"text": "a"}, "b"],
    {"source_sentence": "a", "sentences": []},
)
MOST: Final = 2
"""Changes of one body."""


def odd_body(body: Mapping[str, object], seed: int) -> bytes:
    """Changes members of every second body, and bytes of the others; the same for the same seed.

    Example:
        >>> odd_body({"input": "a text"}, 2) == odd_body({"input": "a text"}, 2) != b'{"input":"a text"}'
        True
    """
    if seed % 2:
        return mutated(orjson.dumps(body), seed)
    dice = random.Random(seed)
    changed = dict(body)
    for _ in range(dice.randint(1, MOST)):
        name = dice.choice([*body, "unknown"])
        if dice.random() < 0.15:
            changed.pop(name, None)
        else:
            changed[name] = dice.choice(ODD)
    return orjson.dumps(changed)
