"""Splitting and folding, one character kind at a time; the whole against KerasHub is in test_tokenizer."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.presets.tokenizers.word_splitter import (
    MAX_ENTRIES,
    AccentStripper,
    WordSplitter,
    fold_case,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t\n\r\x0b\x0c\x00\x7f\x85\u200b\u00ad ", []),
        ("a\u200bb", ["a", "b"]),
        ("a\u00a0b\u3000c", ["a\u00a0b\u3000c"]),
        ("$5+x_y", ["$", "5", "+", "x", "_", "y"]),
        ("“a”—b…", ["“", "a", "”", "—", "b", "…"]),
        ("a日本b", ["a", "日", "本", "b"]),
        ("カナ한글", ["カナ한글"]),
        ("€5 ²", ["€5", "²"]),
        ("half \ud800 pair", ["half", "\ufffd", "pair"]),
    ],
)
def test_each_kind_of_character(text: str, words: list[str]) -> None:
    assert WordSplitter(split_on_cjk=True).split(text) == words


def test_ideographs_can_stay_together() -> None:
    assert WordSplitter(split_on_cjk=False).split("a日本b，c") == ["a日本b", "，", "c"]


@given(st.text())
def test_splitting_again_changes_nothing(text: str) -> None:
    splitter = WordSplitter(split_on_cjk=True)
    words = splitter.split(text)
    assert all(words)
    assert splitter.split(" ".join(words)) == words


@given(st.text())
def test_words_can_be_encoded(text: str) -> None:
    "".join(WordSplitter(split_on_cjk=True).split(text)).encode()


@given(st.text(st.characters(codec="utf-8")))
def test_folding_again_changes_nothing(text: str) -> None:
    assert fold_case(fold_case(text)) == fold_case(text)


@given(st.text(st.characters(codec="ascii")))
def test_in_ascii_only_case_changes(text: str) -> None:
    assert fold_case(text) == text.lower()
    assert AccentStripper().strip(text) == text


def by_normalize(text: str) -> str:
    """The definition, which takes quadratic time."""
    return "".join(char for char in unicodedata.normalize("NFD", text) if unicodedata.category(char) != "Mn")


MARKS = [char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.combining(char)]
STAY = [mark for mark in MARKS if unicodedata.category(mark) != "Mn"]


@given(st.text())
def test_accents_are_stripped(text: str) -> None:
    assert AccentStripper().strip(text) == by_normalize(text)


@given(st.text(st.sampled_from(["a", "é", "ệ", "한", "日", *STAY, *MARKS[:40]])))
def test_marks_that_stay_are_in_canonical_order(text: str) -> None:
    assert AccentStripper().strip(text) == by_normalize(text)


def test_accents_of_every_character_are_stripped() -> None:
    stripper = AccentStripper()
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    assert stripper.strip(every) == by_normalize(every)
    assert len(stripper._table) <= MAX_ENTRIES


@pytest.mark.parametrize("marks", ["\u0301", "\u0301\u0316", STAY[0], "".join(STAY)], ids=ascii)
def test_long_runs_of_marks_take_linear_time(marks: str) -> None:
    """Quadratic time would be hours."""
    run = marks * (2_000_000 // len(marks))
    stay = sorted((mark for mark in run if mark in STAY), key=unicodedata.combining)
    assert AccentStripper().strip("a" + run) == "".join(["a", *stay])
