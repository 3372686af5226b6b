"""Texts in steps: the ids are those of the whole text, and no step reads much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from electra_serve.presets.tokenizers import keras_hub, transformers
from electra_serve.presets.tokenizers.bert_pipeline import BertConfig, make_bert_pipeline, special_pieces
from electra_serve.presets.tokenizers.keras_hub import KerasTokenizer, TokenizerConfig
from electra_serve.presets.tokenizers.loader import Tokenizer
from electra_serve.presets.tokenizers.pairs import Template
from electra_serve.presets.tokenizers.steps import STEP_CHARACTERS, windows_at_spaces
from electra_serve.presets.tokenizers.transformers import TransformersTokenizer
from electra_serve.presets.tokenizers.word_splitter import AccentStripper
from electra_serve.tensors import Truncation

PIECES = [
    "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "b", "##b", "e", "!", ";", "日", "ss", "##ss",
    "한", "##한", "[", "]", "mask",
]  # fmt: skip
CHARACTERS = st.sampled_from(
    ["a", "b", "é", "ß", "日", "한", "!", ";", " ", " ", "\n", "\u00a0", "\u200d", "\u0301", "\u0316", "\u1b44",
     "\u302e", "\u0f73", "\U0001d165", "\ud800", "\udc00", "İ", "\u037e", "[MASK]", "a b"]
)  # fmt: skip
TEXTS = st.lists(CHARACTERS, max_size=40).map("".join)


def keras(*, lowercase: bool = True, strip_accents: bool = True) -> KerasTokenizer:
    return KerasTokenizer(PIECES, TokenizerConfig(lowercase=lowercase, strip_accents=strip_accents))


def bert() -> TransformersTokenizer:
    vocabulary = {piece: i for i, piece in enumerate(PIECES)}
    pipeline = make_bert_pipeline(BertConfig(vocabulary, special_pieces({"unk_token": "[UNK]"})))
    pipeline.add_tokens([AddedToken("[MASK]", lstrip=True, rstrip=True, single_word=True, normalized=False)])
    return TransformersTokenizer(pipeline, Template.bert(1, 2), splits_at_spaces=True)


def ids(tokenizer: Tokenizer, text: str, truncation: Truncation) -> list[int]:
    found: list[int] = tokenizer.encode([text], max_length=6, truncation=truncation).token_ids[0].tolist()
    return found


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("truncation", [Truncation.NONE, Truncation.RIGHT, Truncation.LEFT])
@pytest.mark.parametrize(
    "tokenizer",
    [keras(), keras(lowercase=False), keras(strip_accents=False), bert()],
    ids=["all", "cased", "accents", "bert"],
)
def test_steps_change_no_id(
    tokenizer: Tokenizer, truncation: Truncation, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @given(TEXTS)
    def check(text: str) -> None:
        whole = ids(tokenizer, text, truncation)
        with monkeypatch.context() as patch:
            patch.setattr(keras_hub, "STEP_CHARACTERS", size)
            patch.setattr(transformers, "STEP_CHARACTERS", size)
            assert ids(tokenizer, text, truncation) == whole

    check()


@given(TEXTS, st.integers(1, 10))
def test_windows_at_spaces_are_the_whole_text(text: str, size: int) -> None:
    windows = list(windows_at_spaces(text, size))
    assert "".join(windows) == text
    assert all(window.startswith(" ") for window in windows[1:])
    assert all(len(window) <= size or " " not in window[1:size] for window in windows)


@given(TEXTS, st.integers(1, 10))
def test_windows_lose_no_accent(text: str, size: int) -> None:
    stripper = AccentStripper()
    windows = list(stripper.windows(text, size))
    assert "".join(windows) == text
    assert "".join(map(stripper.strip, windows)) == stripper.strip(text)


@pytest.mark.parametrize("text", ["a " * 50_000, "日" * 100_000, "!" * 100_000, "a" * 100_000], ids=ascii)
def test_a_step_of_keras_hubs_tokenizer_is_bounded(text: str) -> None:
    steps = list(keras().encode_in_steps([text], max_length=512))
    assert sum(steps) == len(text)
    assert max(steps) <= STEP_CHARACTERS


def test_a_step_of_berts_pipeline_is_bounded_if_there_are_spaces() -> None:
    steps = list(bert().encode_in_steps(["a " * 50_000, ("b " * 9000, "a")], max_length=512))
    assert sum(steps) == 118_001
    assert max(steps) <= STEP_CHARACTERS
    assert list(bert().encode_in_steps(["日" * 10_000], max_length=512)) == [10_000]


def test_truncation_ends_the_steps() -> None:
    for tokenizer in (keras(), bert()):
        steps = list(tokenizer.encode_in_steps(["a " * 50_000], max_length=512, truncation=Truncation.RIGHT))
        assert len(steps) == 1
