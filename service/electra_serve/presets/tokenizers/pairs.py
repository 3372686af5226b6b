"""Ids of texts to sequences: `[CLS] a [SEP]`, and `[CLS] a [SEP] b [SEP]` for a pair. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from electra_serve.tensors import Int32Array

TextOrPair = str | tuple[str, str]
Ids = Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedText:
    """Texts as ids.

    Attributes:
        token_ids: One (T,) int32 array per text.
        segment_ids: Likewise: 0, and 1 for the second text of a pair and its [SEP].
        truncated: Per text, whether it was cut.
    """

    token_ids: Sequence[Int32Array]
    segment_ids: Sequence[Int32Array]
    truncated: Sequence[bool]


@dataclass(frozen=True, slots=True)
class Packer:
    """Packs ids.

    Attributes:
        cls: Id of [CLS].
        sep: Id of [SEP].
        cut_pair: Shortens two parts to so many ids in all; below are two ways.
    """

    cls: int
    sep: int
    cut_pair: Callable[[Ids, Ids, int], tuple[Ids, Ids]]

    def pack(self, rows: Iterable[Sequence[Ids]], max_length: int | None) -> TokenizedText:
        """Packs rows of one or two parts.

        Args:
            rows: Each the ids of a text, or of both texts of a pair. A part may lack ids that are certain to be cut,
                if it has one more than can stay.
            max_length: Most ids of one result, at least 3 for a pair and 2 otherwise; None to cut nothing.
        """
        packed = [self._row(parts, max_length) for parts in rows]
        return TokenizedText(
            token_ids=tuple(row[0] for row in packed),
            segment_ids=tuple(row[1] for row in packed),
            truncated=tuple(row[2] for row in packed),
        )

    def _row(self, parts: Sequence[Ids], max_length: int | None) -> tuple[Int32Array, Int32Array, bool]:
        kept = parts if max_length is None else self._cut(parts, max_length - 1 - len(parts))
        token_ids = [self.cls]
        segment_ids = [0]
        for segment, part in enumerate(kept):
            token_ids += [*part, self.sep]
            segment_ids += [segment] * (len(part) + 1)
        truncated = sum(map(len, kept)) < sum(map(len, parts))
        return np.array(token_ids, np.int32), np.array(segment_ids, np.int32), truncated

    def _cut(self, parts: Sequence[Ids], budget: int) -> Sequence[Ids]:
        return [parts[0][:budget]] if len(parts) == 1 else self.cut_pair(parts[0], parts[1], budget)


def cut_as_keras_hub(first: Ids, second: Ids, budget: int) -> tuple[Ids, Ids]:
    """Shortens the longer of two; where both are cut, the first keeps the odd id.

    Example:
        >>> cut_as_keras_hub([1, 2, 3, 4], [5], 3), cut_as_keras_hub([1, 2, 3, 4], [5, 6, 7], 5)
        (([1, 2], [5]), ([1, 2, 3], [5, 6]))
    """
    kept = min(len(first), max(budget - len(second), (budget + 1) // 2))
    return first[:kept], second[: budget - kept]


def cut_as_transformers(first: Ids, second: Ids, budget: int) -> tuple[Ids, Ids]:
    """Shortens the longer of two, as `longest_first` does; where both are cut, the longer keeps the odd id.

    Example:
        >>> cut_as_transformers([1, 2, 3, 4], [5], 3), cut_as_transformers([1, 2, 3], [5, 6, 7], 5)
        (([1, 2], [5]), ([1, 2], [5, 6, 7]))
    """
    if len(first) <= len(second):
        kept = min(len(first), budget // 2)
        return first[:kept], second[: budget - kept]
    kept = min(len(second), budget // 2)
    return first[: budget - kept], second[:kept]
