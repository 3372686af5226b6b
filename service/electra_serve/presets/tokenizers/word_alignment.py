"""Words of a text with the place of each character: what `word_splitter` does, character by character.

It is slower than `str.translate`, so it is used only if offsets are requested. A character that disappears, such as a
stripped accent, belongs to the one before it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from electra_serve.presets.tokenizers.word_splitter import AccentStripper, WordSplitter, fold_case

HANGUL_JOINING: Final = range(0x1160, 0x1200)
"""Vowels and final consonants, which NFKC composes with the letter before them."""


@dataclass(slots=True)
class AlignedWord:
    """Characters of a word, and the characters of the text that each is made of.

    Attributes:
        chars: The first `limit` characters, if there is a limit.
        starts: For each of `chars`, the first character of the text.
        ends: Likewise, the character after the last one.
        length: Number of all characters.
        end: End of the last character.
    """

    chars: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    length: int = 0
    end: int = 0

    @property
    def text(self) -> str:
        """The kept characters."""
        return "".join(self.chars)

    def append(self, char: str, start: int, end: int, limit: int) -> None:
        """Adds a character; keeps it if fewer than `limit` are kept."""
        if self.length < limit:
            self.chars.append(char)
            self.starts.append(start)
            self.ends.append(end)
        self.length += 1
        self.end = end

    def whole(self, text: str) -> AlignedWord:
        """Returns `text` as a word, each character of which stands for this whole one."""
        count = len(text)
        return AlignedWord(list(text), self.starts[:1] * count, [self.end] * count, count, self.end)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Returns the characters of the text that `chars[start:end]` are made of."""
        return min(self.starts[start:end]), max(self.ends[start:end])


def strip_aligned(text: str, begin: int, accents: AccentStripper | None) -> list[tuple[str, int, int]]:
    """Returns the characters of `accents.strip(text)`, each with its start and end, counted from `begin`.

    Example:
        >>> strip_aligned("e\N{COMBINING ACUTE ACCENT}a", 0, AccentStripper())
        [('e', 0, 2), ('a', 2, 3)]
    """
    if accents is None:
        return [(char, at, at + 1) for at, char in enumerate(text, begin)]
    placed: list[tuple[str, int, int]] = []
    for at, char in enumerate(text, begin):
        form = accents.form(char)
        if not form and placed:
            placed[-1] = (*placed[-1][:2], at + 1)
        placed += [(part, at, at + 1) for part in form]
    return _in_canonical_order(placed)


def words_aligned(
    placed: list[tuple[str, int, int]], splitter: WordSplitter, unfinished: AlignedWord, limit: int
) -> Iterator[AlignedWord]:
    """Yields the words, the last of which may go on in the next window; each keeps at most `limit` characters."""
    word = unfinished
    for char, start, end in placed:
        spaced = splitter.space(char)
        inner = spaced.strip(" ")
        if len(spaced) > len(inner):
            yield word
            word = AlignedWord()
        if inner:
            word.append(inner, start, end, limit)
        if len(spaced) > len(inner) > 0:
            yield word
            word = AlignedWord()
    yield word


def fold_aligned(word: AlignedWord) -> AlignedWord:
    """Returns `fold_case` of a word; characters that are folded together have the same place."""
    folded = fold_case(word.text)
    if len(folded) == len(word.chars) and word.text.isascii():
        return AlignedWord(list(folded), word.starts, word.ends, word.length, word.end)
    segments = _segments(word)
    parts = [fold_case("".join(word.chars[segment])) for segment in segments]
    if "".join(parts) != folded:
        return word.whole(folded)
    aligned = AlignedWord()
    for part, segment in zip(parts, segments, strict=True):
        start, end = word.span(segment.start, segment.stop)
        if not part and aligned.ends:
            aligned.ends[-1] = aligned.end = end
        for char in part:
            aligned.append(char, start, end, limit=len(folded))
    return aligned


def _segments(word: AlignedWord) -> list[slice]:
    """Cuts a word before the characters that are not folded together with those before them."""
    starts = [at for at, char in enumerate(word.chars) if at == 0 or not _joins(char)]
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(word.chars)], strict=True)]


def _joins(char: str) -> bool:
    return unicodedata.category(char).startswith("M") or ord(char) in HANGUL_JOINING


def _in_canonical_order(placed: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Sorts each run of combining characters by class, stably (UAX #15)."""
    ordered: list[tuple[str, int, int]] = []
    run: list[tuple[str, int, int]] = []
    for item in placed:
        if unicodedata.combining(item[0]):
            run.append(item)
            continue
        ordered += sorted(run, key=_class)
        run = []
        ordered.append(item)
    return ordered + sorted(run, key=_class)


def _class(item: tuple[str, int, int]) -> int:
    return unicodedata.combining(item[0])
