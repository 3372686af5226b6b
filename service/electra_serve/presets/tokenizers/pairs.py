"""Ids of texts to sequences, such as `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`. Pure.

A template has the ids around the texts; a truncation selects the text that is cut, and the side. A sequence that cannot
be cut enough stays whole, and the caller sees its length. With a stride, a long text is not cut but becomes several
sequences, each with a window of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from electra_serve.presets.tokenizers.alignment import NO_TEXT, AlignedIds, Alignment, Ids, align, int32_array
from electra_serve.tensors import Int32Array, Truncation

TextOrPair = str | tuple[str, str]
Part = Ids | AlignedIds
Side = Literal["left", "right"]

LONGER_FIRST: Final = frozenset({Truncation.RIGHT, Truncation.LEFT, Truncation.LONGEST_FIRST})
"""Truncations that shorten both texts of a pair, the longer one first."""

MAX_WINDOWS: Final = 1024
"""Most windows of one text."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedText:
    """Texts as ids.

    Attributes:
        token_ids: One (T,) int32 array per text.
        segment_ids: Likewise: 0, and 1 for the second text of a pair and its [SEP].
        truncated: Per text, whether it was cut.
        alignments: Per text, the origin of its ids; None if it was not requested.
    """

    token_ids: Sequence[Int32Array]
    segment_ids: Sequence[Int32Array]
    truncated: Sequence[bool]
    alignments: Sequence[Alignment] | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """One place of a template: a text, or an id of the template's own.

    Attributes:
        text: 0 for the only or first text, 1 for the second; None for an id.
        id: The id, if it is no text.
        segment: Segment of its ids.
    """

    text: int | None = None
    id: int = 0
    segment: int = 0


@dataclass(frozen=True, slots=True)
class Template:
    """The form of a tokenizer's sequences.

    Attributes:
        single: Places around one text.
        pair: Places around both texts of a pair.
    """

    single: Sequence[Slot]
    pair: Sequence[Slot]

    @classmethod
    def bert(cls, cls_id: int, sep_id: int) -> Template:
        """`[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`."""
        first = (Slot(id=cls_id), Slot(text=0), Slot(id=sep_id))
        return cls(first, (*first, Slot(text=1, segment=1), Slot(id=sep_id, segment=1)))

    def of(self, texts: int) -> Sequence[Slot]:
        """The form for so many texts, 1 or 2."""
        return self.single if texts == 1 else self.pair

    def without_segments(self) -> Template:
        """The same with segment 0 throughout."""
        return Template(*(tuple(replace(slot, segment=0) for slot in form) for form in (self.single, self.pair)))

    @property
    def own_ids(self) -> frozenset[int]:
        """Ids of its own, of both forms."""
        return frozenset(slot.id for slot in (*self.single, *self.pair) if slot.text is None)


@dataclass(frozen=True, slots=True)
class Packer:
    """Cuts and packs ids.

    Attributes:
        template: The form of the sequences.
        longer_first: Lengths that are kept of two texts, of their lengths and a budget; below are two ways.
        side: The side that is cut unless the truncation names one.
    """

    template: Template
    longer_first: Callable[[int, int, int], tuple[int, int]]
    side: Side = "right"

    def cut_side(self, truncation: Truncation) -> Side:
        """The side that `truncation` cuts."""
        if truncation in (Truncation.LEFT, Truncation.RIGHT):
            return "left" if truncation is Truncation.LEFT else "right"
        return self.side

    def pack(
        self, rows: Iterable[Sequence[Part]], max_length: int, truncation: Truncation, stride: int | None = None
    ) -> TokenizedText:
        """Packs rows of one or two parts, all aligned or none; with `stride`, a long row becomes several sequences."""
        packed: list[Sequence[Part]] = []
        truncated: list[bool] = []
        for parts in rows:
            if stride is not None:
                packed += self._windows(parts, max_length, stride)
                truncated += [False] * (len(packed) - len(truncated))
                continue
            packed.append(self._cut(parts, max_length, truncation))
            truncated.append(sum(map(len, packed[-1])) < sum(map(len, parts)))
        aligned = any(isinstance(part, AlignedIds) for parts in packed for part in parts)
        return TokenizedText(
            token_ids=tuple(map(self._token_ids, packed)),
            segment_ids=tuple(map(self._segment_ids, packed)),
            truncated=tuple(truncated),
            alignments=tuple(map(self._alignment, packed)) if aligned else None,
        )

    def _token_ids(self, parts: Sequence[Part]) -> Int32Array:
        token_ids: list[int] = []
        for slot in self.template.of(len(parts)):
            token_ids += (slot.id,) if slot.text is None else _ids(parts[slot.text])
        return int32_array(token_ids)

    def _segment_ids(self, parts: Sequence[Part]) -> Int32Array:
        segment_ids: list[int] = []
        for slot in self.template.of(len(parts)):
            segment_ids += [slot.segment] * (1 if slot.text is None else len(parts[slot.text]))
        return int32_array(segment_ids)

    def _alignment(self, parts: Sequence[Part]) -> Alignment:
        return align(
            (NO_TEXT, None) if slot.text is None else (slot.text, _aligned(parts[slot.text]))
            for slot in self.template.of(len(parts))
        )

    def _budget(self, texts: int, max_length: int) -> int:
        """Ids that are left for the texts."""
        return max_length - sum(slot.text is None for slot in self.template.of(texts))

    def _windows(self, parts: Sequence[Part], max_length: int, stride: int) -> Sequence[Sequence[Part]]:
        """Windows of the last part, which overlap by `stride` ids, as transformers' overflowing tokens do.

        One that leaves no room for a step, or would make more than `MAX_WINDOWS`, stays whole.
        """
        *others, last = parts
        size = self._budget(len(parts), max_length) - sum(map(len, others))
        if len(last) <= size or size <= stride:
            return [parts]
        starts = range(0, len(last) - stride, size - stride)
        if len(starts) > MAX_WINDOWS:
            return [parts]
        if self.side == "left":
            ends = [len(last) - start for start in starts]
            return [[*others, last[max(end - size, 0) : end]] for end in ends]
        return [[*others, last[start : start + size]] for start in starts]

    def _cut(self, parts: Sequence[Part], max_length: int, truncation: Truncation) -> Sequence[Part]:
        lengths = [len(part) for part in parts]
        budget = self._budget(len(parts), max_length)
        if truncation is Truncation.NONE or sum(lengths) <= budget or budget < 0:
            return parts
        kept = self._kept(lengths, budget, truncation)
        if self.cut_side(truncation) == "left":
            return [part[len(part) - length :] for part, length in zip(parts, kept, strict=True)]
        return [part[:length] for part, length in zip(parts, kept, strict=True)]

    def _kept(self, lengths: Sequence[int], budget: int, truncation: Truncation) -> Sequence[int]:
        """Lengths that are kept, of parts that are longer than `budget` together."""
        if len(lengths) == 1:
            return lengths if truncation is Truncation.ONLY_SECOND else [budget]
        if truncation in LONGER_FIRST:
            return self.longer_first(lengths[0], lengths[1], budget)
        cut, whole = (0, 1) if truncation is Truncation.ONLY_FIRST else (1, 0)
        left = budget - lengths[whole]
        if left < 1:
            return lengths
        return (left, lengths[1]) if cut == 0 else (lengths[0], left)


def _ids(part: Part) -> Ids:
    return part.ids if isinstance(part, AlignedIds) else part


def _aligned(part: Part) -> AlignedIds:
    if not isinstance(part, AlignedIds):
        raise TypeError("all parts must be aligned, or none")
    return part


def keep_as_keras_hub(first: int, second: int, budget: int) -> tuple[int, int]:
    """Shortens the longer of two; if both are cut, the first keeps the odd id.

    Example:
        >>> keep_as_keras_hub(4, 1, 3), keep_as_keras_hub(4, 3, 5)
        ((2, 1), (3, 2))
    """
    kept = min(first, max(budget - second, (budget + 1) // 2))
    return kept, min(second, budget - kept)


def keep_as_transformers(first: int, second: int, budget: int) -> tuple[int, int]:
    """Shortens the longer of two, as `longest_first` does; if both are cut, the longer keeps the odd id.

    Example:
        >>> keep_as_transformers(4, 1, 3), keep_as_transformers(3, 3, 5)
        ((2, 1), (2, 3))
    """
    kept = min(first, second, budget // 2)
    other = min(max(first, second), budget - kept)
    return (kept, other) if first <= second else (other, kept)
