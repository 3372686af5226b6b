"""Offsets: the same ids, and for each id the characters that it was made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from tokenizers.normalizers import BertNormalizer

from electra_serve.presets.tokenizers import keras_hub, transformers
from electra_serve.presets.tokenizers.alignment import NO_TEXT, Alignment
from electra_serve.presets.tokenizers.keras_hub import MAX_WORD_CHARACTERS, KerasTokenizer, TokenizerConfig
from electra_serve.presets.tokenizers.loader import Tokenizer
from electra_serve.presets.tokenizers.pairs import TextOrPair
from electra_serve.presets.tokenizers.word_splitter import AccentStripper, fold_case
from electra_serve.tensors import Truncation
from tests.unit.presets.tokenizers.test_steps import PIECES, TEXTS, bert, keras

NO_LIMIT = 10**6
ACUTE = "\N{COMBINING ACUTE ACCENT}"
TOKENIZERS: dict[str, Tokenizer] = {
    "all": keras(),
    "cased": keras(lowercase=False),
    "accents": keras(strip_accents=False),
    "bert": bert(),
}


def aligned(tokenizer: Tokenizer, text: TextOrPair) -> tuple[list[str], Alignment]:
    """Pieces and their alignment."""
    found = tokenizer.encode([text], max_length=NO_LIMIT, aligned=True)
    assert found.alignments is not None
    return [PIECES[id_] for id_ in found.token_ids[0]], found.alignments[0]


def spans(tokenizer: Tokenizer, text: str) -> list[tuple[str, str]]:
    """Pieces of the text, each with its characters."""
    pieces, alignment = aligned(tokenizer, text)
    return [
        (piece, text[start:end])
        for piece, start, end, of in zip(pieces, alignment.starts, alignment.ends, alignment.texts, strict=True)
        if of != NO_TEXT
    ]


def trimmed(alignment: Alignment, text: str) -> list[tuple[int, int]]:
    """Offsets without white space at the edges: an added piece reaches over it, but not over the edge of a step."""
    found = []
    for start, end in zip(alignment.starts.tolist(), alignment.ends.tolist(), strict=True):
        characters = text[start:end]
        left = len(characters) - len(characters.lstrip())
        found.append((start + left, start + left + len(characters.strip())))
    return found


def normalized(name: str, text: str) -> str:
    """Characters as the tokenizer sees them."""
    if name == "bert":
        return BertNormalizer().normalize_str(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    stripped = text if name == "accents" else AccentStripper().strip(text)
    return stripped if name == "cased" else fold_case(stripped)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_characters_cover_the_piece(name: str) -> None:
    @given(TEXTS)
    def check(text: str) -> None:
        for piece, characters in spans(TOKENIZERS[name], text):
            assert characters
            if piece == "[UNK]":
                continue
            bare = piece.removeprefix("##")
            assert bare in normalized(name, characters) or bare == characters.strip()

    check()


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("truncation", [Truncation.NONE, Truncation.RIGHT, Truncation.LEFT])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_are_the_same_and_steps_change_no_offset(
    name: str, truncation: Truncation, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = TOKENIZERS[name]

    @given(TEXTS)
    def check(text: str) -> None:
        plain = tokenizer.encode([text], max_length=6, truncation=truncation)
        assert plain.alignments is None
        whole = tokenizer.encode([text], max_length=6, truncation=truncation, aligned=True)
        with monkeypatch.context() as patch:
            patch.setattr(keras_hub, "STEP_CHARACTERS", size)
            patch.setattr(transformers, "STEP_CHARACTERS", size)
            stepped = tokenizer.encode([text], max_length=6, truncation=truncation, aligned=True)
        assert whole.token_ids[0].tolist() == stepped.token_ids[0].tolist() == plain.token_ids[0].tolist()
        assert whole.alignments is not None
        assert stepped.alignments is not None
        assert trimmed(whole.alignments[0], text) == trimmed(stepped.alignments[0], text)
        assert len(whole.alignments[0]) == len(whole.token_ids[0])

    check()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_words_begin_with_a_piece_without_prefix(name: str) -> None:
    @given(TEXTS)
    def check(text: str) -> None:
        pieces, alignment = aligned(TOKENIZERS[name], text)
        assert alignment.first_of_word.tolist() == [not piece.startswith("##") for piece in pieces]

    check()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ab éb", [("a", "a"), ("##b", "b"), ("e", "é"), ("##b", "b")]),
        (f"e{ACUTE}b a", [("e", f"e{ACUTE}"), ("##b", "b"), ("a", "a")]),
        ("a日b!", [("a", "a"), ("日", "日"), ("b", "b"), ("!", "!")]),
        ("ß", [("ss", "ß")]),
        ("a 😀 b", [("a", "a"), ("[UNK]", "😀"), ("b", "b")]),
        ("a\u00a0b a", [("[UNK]", "a\u00a0b"), ("a", "a")]),
        ("a\u200db", [("a", "a"), ("b", "b")]),
        ("한", [("한", "한")]),
    ],
)
def test_keras_spans(text: str, expected: list[tuple[str, str]]) -> None:
    assert spans(keras(), text) == expected


def test_letters_that_are_folded_together_have_one_place() -> None:
    tokenizer = KerasTokenizer([*PIECES, "f", "##i"], TokenizerConfig(lowercase=True))
    found = tokenizer.encode(["ﬁ a"], max_length=9, aligned=True)
    assert found.alignments is not None
    assert found.alignments[0].starts.tolist() == [0, 0, 0, 2, 0]
    assert found.alignments[0].ends.tolist() == [0, 1, 1, 3, 0]


def test_hangul_in_parts_is_one_syllable() -> None:
    syllable = "\u1112\u1161\u11ab"  # composes to U+D55C
    assert spans(keras(strip_accents=False), f"{syllable} a") == [("한", syllable), ("a", "a")]


def test_a_word_that_is_too_long_is_covered_whole() -> None:
    long = "a" * (MAX_WORD_CHARACTERS + 500)
    assert spans(keras(), f"b {long} b") == [("b", "b"), ("[UNK]", long), ("b", "b")]


@pytest.mark.parametrize("tokenizer", [keras(), bert()], ids=["keras", "bert"])
def test_both_texts_of_a_pair_count_from_their_own_start(tokenizer: Tokenizer) -> None:
    pieces, alignment = aligned(tokenizer, ("a b", "  b"))
    assert pieces == ["[CLS]", "a", "b", "[SEP]", "b", "[SEP]"]
    assert alignment.texts.tolist() == [NO_TEXT, 0, 0, NO_TEXT, 1, NO_TEXT]
    assert alignment.starts.tolist() == [0, 0, 2, 0, 2, 0]
    assert alignment.ends.tolist() == [0, 1, 3, 0, 3, 0]


def test_an_added_piece_keeps_its_place() -> None:
    assert spans(bert(), "日 [MASK] a") == [("日", "日"), ("[MASK]", " [MASK] "), ("a", "a")]


def test_half_a_surrogate_pair_moves_nothing() -> None:
    # BERT drops U+FFFD, which stands for a half alone
    assert spans(bert(), "a\ud83d\ude00 b \ud83d a") == [
        ("[UNK]", "a\ud83d\ude00"),
        ("b", "b"),
        ("a", "a"),
    ]
