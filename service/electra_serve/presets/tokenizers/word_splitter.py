"""Text to words, as KerasHub's `WordPieceTokenizer` does it (its `pretokenize_python`), in pure functions.

Characters fall into three kinds, and a table remembers each character's:

    blank     ASCII white space, control (Cc) and format (Cf) characters: parts words and disappears
    isolated  ASCII symbols, punctuation (P*) and, if asked, CJK ideographs: a word of its own
    inner     everything else, other kinds of white space included: stays inside its word
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

_CodePoints = tuple[tuple[int, int], ...]

# As in the original BERT
CJK_IDEOGRAPHS: Final[_CodePoints] = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)

_DEFAULT_IGNORABLE_RANGES: Final[_CodePoints] = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
# For `str.translate`, Unicode's Default_Ignorable_Code_Point: NFKC_Casefold drops them
DEFAULT_IGNORABLE: Final = dict.fromkeys(
    code_point for first, last in _DEFAULT_IGNORABLE_RANGES for code_point in range(first, last + 1)
)


# Characters that a table remembers: a client may send all of Unicode. Others are looked up each time.
MAX_ENTRIES: Final = 20_000


class WordSplitter:
    r"""Splits text into words. Any thread may use it.

    Example:
        >>> WordSplitter(split_on_cjk=True).split("Isn't it\t日本?")
        ['Isn', "'", 't', 'it', '日', '本', '?']
    """

    def __init__(self, *, split_on_cjk: bool) -> None:
        self._table = _SpacingTable(split_on_cjk=split_on_cjk)

    def split(self, text: str) -> list[str]:
        """The words of `text`, in order, none of them empty."""
        return [word for word in self.space(text).split(" ") if word]

    def space(self, text: str) -> str:
        """Returns `text` with spaces between its words and nowhere else; several may follow each other."""
        return text.translate(self._table)


class _SpacingTable(dict[int, str]):
    """For `str.translate`: every character with the spaces that separate it from its neighbors."""

    def __init__(self, *, split_on_cjk: bool) -> None:
        super().__init__()
        self._split_on_cjk = split_on_cjk

    def __missing__(self, code_point: int) -> str:
        spaced = self._spaced(chr(code_point))
        if len(self) < MAX_ENTRIES:
            self[code_point] = spaced
        return spaced

    def _spaced(self, char: str) -> str:
        category = unicodedata.category(char)
        if char == " " or category in {"Cc", "Cf"}:  # Cc has the other ASCII white space
            return " "
        if category == "Cs":  # half a surrogate pair is no character, and no UTF-8 can carry it
            return "\N{REPLACEMENT CHARACTER}"
        symbol = char.isascii() and not char.isalnum()
        if symbol or category.startswith("P") or (self._split_on_cjk and _within(char, CJK_IDEOGRAPHS)):
            return f" {char} "
        return char


class AccentStripper:
    """Decomposes text (NFD) and drops its non-spacing marks, in linear time. Any thread may use it.

    `unicodedata.normalize` takes quadratic time for a run of combining marks, and holds the interpreter's lock: for
    minutes, with a text that a client may send. Decomposing each character and sorting the runs by buckets gives the
    same result.

    Example:
        >>> AccentStripper().strip("naïve café")
        'naive cafe'
    """

    def __init__(self) -> None:
        self._table = _DecompositionTable()

    def strip(self, text: str) -> str:
        """Returns `text` without accents."""
        if text.isascii():
            return text
        stripped = text.translate(self._table)
        return stripped if self._table.combining.isdisjoint(stripped) else _in_canonical_order(stripped)

    def form(self, char: str) -> str:
        """Returns what one character becomes: its decomposition without marks, in the order of `char` itself."""
        return self._table[ord(char)]

    def windows(self, text: str, size: int) -> Iterator[str]:
        """Cuts `text` into windows of `size` characters that can be stripped one by one.

        A run of combining characters is not cut, since it has to be sorted: it makes a longer window.
        """
        start = 0
        while start < len(text):
            end = start + size
            while end < len(text) and not self._starts_a_run(text[end]):
                end += 1
            yield text[start:end]
            start = end

    def _starts_a_run(self, char: str) -> bool:
        form = self._table[ord(char)]
        return form != "" and not unicodedata.combining(form[0])


class _DecompositionTable(dict[int, str]):
    """For `str.translate`: the canonical decomposition of each character, without non-spacing marks.

    Attributes:
        combining: The characters of the table that combine: they have to be sorted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.combining: set[str] = set()

    def __missing__(self, code_point: int) -> str:
        decomposed = unicodedata.normalize("NFD", chr(code_point))
        kept = "".join(char for char in decomposed if unicodedata.category(char) != "Mn")
        self.combining.update(filter(unicodedata.combining, kept))
        if len(self) < MAX_ENTRIES:
            self[code_point] = kept
        return kept


def _in_canonical_order(text: str) -> str:
    """Sorts each run of combining characters by class, stably (UAX #15)."""
    ordered: list[str] = []
    run: dict[int, list[str]] = {}
    for char in text:
        if combining_class := unicodedata.combining(char):
            run.setdefault(combining_class, []).append(char)
            continue
        if run:
            ordered += (marked for combining_class in sorted(run) for marked in run[combining_class])
            run = {}
        ordered.append(char)
    ordered += (marked for combining_class in sorted(run) for marked in run[combining_class])
    return "".join(ordered)


def fold_case(word: str) -> str:
    """Unicode's NFKC_Casefold: without case, compatibility variants and ignorable characters.

    Example:
        >>> fold_case("Straße"), fold_case("ﬁn")
        ('strasse', 'fin')
    """
    if word.isascii():
        return word.lower()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())
    return folded.translate(DEFAULT_IGNORABLE)


def _within(char: str, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(first <= ord(char) <= last for first, last in ranges)
