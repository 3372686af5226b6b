"""The many ways to write a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from electra_serve.client import grpc_codec, rest_codec
from electra_serve.client.request import ClassifyOptions, EmbedQuery, Query, RerankQuery, text_or_pairs
from electra_serve.errors import InvalidInput
from electra_serve.tensors import Output

DEFAULTS: dict[str, Any] = {
    "token_ids": None,
    "segment_ids": None,
    "padding_mask": None,
    "text": None,
    "model": None,
    "outputs": (),
    "truncate": False,
    "truncation": None,
    "priority": "normal",
}


def query(**changes: object) -> Query:
    """A query with all that is not in `changes` at its default."""
    return Query.of(**{**DEFAULTS, **changes})


@pytest.mark.parametrize(
    "token_ids",
    [
        [[1, 2], [3, 4]],
        ((1, 2), (3, 4)),
        np.array([[1, 2], [3, 4]], np.int64),
        [np.array([1, 2], np.uint8), [3, 4]],
    ],
)
def test_ids_are_sequences_or_an_array(token_ids: object) -> None:
    rows = query(token_ids=token_ids).token_ids
    assert rows is not None
    assert [row.tolist() for row in rows] == [[1, 2], [3, 4]]


def test_a_mask_may_be_boolean_and_a_sequence_empty() -> None:
    made = query(token_ids=[[1, 2], []], padding_mask=[[True, False], []])
    assert made.padding_mask is not None
    assert [row.tolist() for row in made.padding_mask] == [[1, 0], []]
    assert all(np.issubdtype(row.dtype, np.integer) for row in made.padding_mask)


@pytest.mark.parametrize("row", [[1.5], [2**70], ["7"], [None], 7, [[1]], np.zeros((1, 1), np.int32)])
def test_what_is_no_sequence_of_integers_is_rejected_and_named(row: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        query(token_ids=[[1], row])
    assert caught.value.field == "token_ids[1]"


@pytest.mark.parametrize(
    ("text", "texts"), [("a", ["a"]), (["a", ("b", "c")], ["a", ("b", "c")]), (("a", "b"), ["a", "b"])]
)
def test_text_is_one_or_several(text: object, texts: object) -> None:
    assert query(text=text).texts == texts


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "got neither"),
        ({"token_ids": [[1]], "text": ""}, "got both"),
        ({"text": "a", "segment_ids": [[1]]}, "need token_ids"),
        ({"text": "a", "padding_mask": [[1]]}, "need token_ids"),
        ({"text": "a", "truncation": "Right"}, "`truncation` must be one of none, right, left"),
        ({"text": "a", "outputs": ["mean"]}, "`outputs` must be of sequence_output, pooled_output"),
    ],
)
def test_what_does_not_go_together_is_rejected(changes: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        query(**changes)


def test_outputs_are_known_by_name() -> None:
    assert query(text="a", outputs=["mean_output", Output.CLS]).outputs == (Output.MEAN, Output.CLS)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("cut \ude00 emoji", "cut \ufffd emoji"),
        ("\ud83d", "\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("plain \U0001f600 é", "plain \U0001f600 é"),
    ],
)
def test_half_a_surrogate_pair_is_replaced(text: str, sent: str) -> None:
    assert query(text=text).texts == [sent]
    assert query(text=["a", text, (text, "b"), ["b", text]]).texts == ["a", sent, (sent, "b"), ("b", sent)]


@pytest.mark.parametrize("text", [7, None, b"a", ("a",), ("a", "b", "c"), ("a", 7)])
def test_what_is_no_text_is_rejected_and_named(text: object) -> None:
    with pytest.raises(InvalidInput, match=r"`text\[1\]` must be a string or a pair of strings") as caught:
        query(text=["a", text])
    assert caught.value.field == "text[1]"


@pytest.mark.parametrize(
    ("field", "value"), [("model", "tiny \ud800"), ("priority", "urgent"), ("priority", "high\ud800")]
)
def test_an_option_that_cannot_be_sent_is_rejected_and_named(field: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=f"`{field}` must be") as caught:
        query(text="a", **{field: value})
    assert caught.value.field == field
    str(caught.value).encode()


@pytest.mark.parametrize("api_key", ["shop-\ud800", "schlüssel", "shop\r\nhost: y", "shop\n"])
def test_a_key_that_no_header_carries_is_rejected_and_not_repeated(api_key: str) -> None:
    for credentials in (rest_codec.credentials, grpc_codec.credentials):
        with pytest.raises(InvalidInput, match="`api_key` must be printable ASCII; got other characters") as caught:
            credentials(api_key)
        assert caught.value.field == "api_key"


@pytest.mark.parametrize(
    ("question", "context", "pairs"),
    [
        ("q", "c", [("q", "c")]),
        ("q", ["c", "d"], [("q", "c"), ("q", "d")]),
        (["q", "r"], "c", [("q", "c"), ("r", "c")]),
        (["q", "r"], ["c", "d"], [("q", "c"), ("r", "d")]),
    ],
)
def test_questions_go_with_contexts(
    question: str | list[str], context: str | list[str], pairs: list[tuple[str, str]]
) -> None:
    assert text_or_pairs(None, question, context) == pairs


@pytest.mark.parametrize(
    ("text", "question", "context", "field"),
    [
        (None, "q", None, "context"),
        (None, None, "c", "question"),
        ("t", "q", "c", "text"),
        (None, ["q"], ["c", "d"], "context"),
    ],
)
def test_questions_that_go_with_nothing_are_rejected(
    text: str | None, question: str | list[str] | None, context: str | list[str] | None, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        text_or_pairs(text, question, context)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"top_k": 2**31}, "top_k"),
        ({"stride": 1.5}, "stride"),
        ({"max_answer_length": True}, "max_answer_length"),
        ({"aggregation": "max"}, "aggregation"),
    ],
)
def test_options_of_a_classification_are_checked(changed: dict[str, Any], field: str) -> None:
    nothing: dict[str, Any] = {"top_k": None, "aggregation": None, "stride": None, "max_answer_length": None}
    assert ClassifyOptions.of(raw_scores=True, **nothing) == ClassifyOptions(raw_scores=True)
    with pytest.raises(InvalidInput) as caught:
        ClassifyOptions.of(raw_scores=False, **nothing | changed)
    assert caught.value.field == field


def embed_query(texts: Any = "a", **changed: Any) -> EmbedQuery:
    given = {"model": None, "prompt_name": None, "input_type": None, "dimensions": None, "priority": "normal"}
    return EmbedQuery.of(texts, **{**given, **changed})


def rerank_query(query: Any = "q", documents: Any = ("a",), **changed: Any) -> RerankQuery:
    given = {"model": None, "top_n": None, "raw_scores": False, "priority": "normal"}
    return RerankQuery.of(query, documents, **{**given, **changed})


def test_texts_to_embed_are_one_or_several() -> None:
    assert embed_query("a").texts == ["a"]
    assert embed_query(("a", "cut \ude00 emoji")).texts == ["a", "cut \ufffd emoji"]
    assert rerank_query("q \ude00", ["a"]).query == "q \ufffd"


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: embed_query(["a", 1]), "texts[1]"),
        (lambda: embed_query("a", dimensions=2.5), "dimensions"),
        (lambda: embed_query("a", priority="urgent"), "priority"),
        (lambda: rerank_query(1), "query"),
        (lambda: rerank_query("q", "one document"), "documents"),
        (lambda: rerank_query("q", ["a", ("b", "c")]), "documents[1]"),
        (lambda: rerank_query("q", ["a"], top_n=2**31), "top_n"),
        (lambda: rerank_query("q", ["a"], model="\ude00"), "model"),
    ],
)
def test_what_cannot_be_embedded_or_reranked_is_named(build: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        build()
    assert caught.value.field == field
