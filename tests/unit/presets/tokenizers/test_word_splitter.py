"""Splitting and folding, one character kind at a time; the whole against KerasHub is in test_tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.presets.tokenizers.word_splitter import WordSplitter, fold_case, strip_accents


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
    assert strip_accents(text) == text
