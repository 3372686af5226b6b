"""Embedding requests: prompts, lengths of vectors, truncation, and slices."""

from __future__ import annotations

import numpy as np
import pytest

from electra_serve.errors import InvalidInput
from electra_serve.presets.sentence_transformers import EmbeddingConfig
from electra_serve.serving.embed import (
    EmbedRequest,
    check_embed,
    choose_prompt,
    finish_vector,
    truncation_of,
    with_prompt,
)
from electra_serve.settings.schema import EmbeddingSettings
from electra_serve.tensors import TextInput, TokenInput, Truncation

TRAINED = EmbeddingConfig(prompts={"query": "query: ", "document": "passage: "}, default_prompt="document")
TEXT = TextInput(("a",))
IDS = TokenInput([np.array([1, 2])])
VECTOR = np.array([3, 4, 12], np.float32)


@pytest.mark.parametrize(
    ("name", "input_type", "prompt"),
    [
        (None, None, "passage: "),
        ("query", None, "query: "),
        ("query", "document", "query: "),
        (None, "query", "query: "),
        (None, "search_query", "query: "),
        (None, "passage", "passage: "),
        (None, "search_document", "passage: "),
        (None, "classification", "passage: "),
    ],
)
def test_a_prompt_is_chosen_by_name_or_by_kind(name: str | None, input_type: str | None, prompt: str) -> None:
    assert choose_prompt(TRAINED, name, input_type) == prompt


def test_a_model_without_prompts_ignores_kinds_and_rejects_names() -> None:
    assert choose_prompt(EmbeddingConfig(), None, "query") == ""
    with pytest.raises(InvalidInput, match="the model has no prompts"):
        choose_prompt(EmbeddingConfig(), "query", None)
    with pytest.raises(InvalidInput, match="query, document"):
        choose_prompt(TRAINED, "title", None)


def test_a_prompt_precedes_the_first_text_of_a_pair() -> None:
    assert with_prompt(["a", ("b", "c")], "q: ") == ("q: a", ("q: b", "c"))


@pytest.mark.parametrize("dimensions", [None, 2, 4])
def test_allowed_lengths(dimensions: int | None) -> None:
    check_embed(EmbedRequest(TEXT, dimensions=dimensions), 4, EmbeddingSettings(dimensions=(2, 8)))


@pytest.mark.parametrize("settings", [None, EmbeddingSettings(dimensions=(2, 8))])
@pytest.mark.parametrize("dimensions", [1, 3, 8])
def test_other_lengths_are_rejected(dimensions: int, settings: EmbeddingSettings | None) -> None:
    with pytest.raises(InvalidInput, match="dimensions must be"):
        check_embed(EmbedRequest(TEXT, dimensions=dimensions), 4, settings)


def test_ids_are_rejected_with_a_hint_unless_the_settings_allow_them() -> None:
    with pytest.raises(InvalidInput, match="check_embedding_ctx_length=False"):
        check_embed(EmbedRequest(IDS), 4, None)
    check_embed(EmbedRequest(IDS), 4, EmbeddingSettings(token_ids="model"))


def test_long_texts_are_truncated_unless_the_request_or_the_settings_say_otherwise() -> None:
    assert truncation_of(EmbedRequest(TEXT), None) is Truncation.LONGEST_FIRST
    assert truncation_of(EmbedRequest(TEXT), EmbeddingSettings(truncate=False)) is Truncation.NONE
    assert truncation_of(EmbedRequest(TEXT, truncation=Truncation.LEFT), None) is Truncation.LEFT


def test_a_vector_is_cut_before_it_is_normalized() -> None:
    assert finish_vector(VECTOR, EmbedRequest(TEXT, dimensions=2)).tolist() == pytest.approx([0.6, 0.8])
    assert finish_vector(VECTOR, EmbedRequest(TEXT, normalize=False)).tolist() == [3, 4, 12]
