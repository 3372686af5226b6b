"""Alignment of ids with the characters of their texts, on request.

A tokenizer makes an `AlignedIds` of each text; packing turns those of a sequence into its `Alignment`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from electra_serve.tensors import Int32Array

NO_TEXT: Final = -1
"""Text of an id that the template adds, such as [CLS]."""

_PIECE: Final = 65_536

Ids = Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Origin of the T ids of one sequence; offsets count the characters of the id's own text.

    Attributes:
        texts: (T,), 0 for the only or first text, 1 for the second, `NO_TEXT` for an id of the template.
        starts: (T,), first character; 0 for an id of the template.
        ends: (T,), the character after the last one; 0 for an id of the template.
        first_of_word: (T,), true for the first id of each word.
    """

    texts: Int32Array
    starts: Int32Array
    ends: Int32Array
    first_of_word: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(slots=True, eq=False)
class AlignedIds:
    """Ids of one text with their characters; all lists have the same length."""

    ids: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    first_of_word: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, kept: slice) -> AlignedIds:
        return AlignedIds(self.ids[kept], self.starts[kept], self.ends[kept], self.first_of_word[kept])

    def append(self, id_: int, start: int, end: int, *, first: bool) -> None:
        """Adds one id."""
        self.ids.append(id_)
        self.starts.append(start)
        self.ends.append(end)
        self.first_of_word.append(first)

    def extend(self, encoding: Any, begin: int, positions: Sequence[int] | None = None) -> None:
        """Adds the ids of a `tokenizers.Encoding` of the characters from `begin`.

        `positions` has the place of each character in the text, and of its end, if they are not all in a row.
        """
        word: int | None = None
        for id_, (start, end), of in zip(encoding.ids, encoding.offsets, encoding.word_ids, strict=True):
            if positions is not None:
                start, end = positions[start], positions[end]
            self.append(id_, begin + start, begin + end, first=of is None or of != word)
            word = of


TEMPLATE_ID: Final = AlignedIds([0], [0], [0], [True])


def align(parts: Iterable[tuple[int, AlignedIds | None]]) -> Alignment:
    """Joins parts of a sequence: a text's number and its ids, or `NO_TEXT` and None for an id of the template."""
    texts: list[int] = []
    joined = AlignedIds()
    for text, part in parts:
        added = TEMPLATE_ID if part is None else part
        joined.starts += added.starts
        joined.ends += added.ends
        joined.first_of_word += added.first_of_word
        texts += [text] * len(added)
    return Alignment(
        int32_array(texts),
        int32_array(joined.starts),
        int32_array(joined.ends),
        int32_array(joined.first_of_word).astype(np.bool_),
    )


def int32_array(values: Sequence[int]) -> Int32Array:
    """An array of `values`, made in pieces: NumPy holds the GIL for 40 ms with a million."""
    array = np.empty(len(values), np.int32)
    for start in range(0, len(values), _PIECE):
        array[start : start + _PIECE] = values[start : start + _PIECE]
    return array
