"""The body of a classification: what it means, and that nothing but the service's errors comes of any JSON."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.api.rest.decode_classify import decode_classify
from electra_serve.api.rest.schemas import ClassifyBody
from electra_serve.errors import ServiceError
from electra_serve.serving.classification.results import ClassifyOptions
from electra_serve.serving.classify import ClassifyRequest
from electra_serve.serving.request_context import NO_CONTEXT
from electra_serve.tensors import Aggregation, TextInput, TokenInput, Truncation
from tests.unit.api.rest.strategies import json_values

FIELDS = st.sampled_from(sorted(ClassifyBody.model_fields))
VALUES = st.one_of(json_values, st.just([[1, 2]]), st.just(["a"]), st.text(max_size=3), st.integers(), st.booleans())


def decode(payload: object) -> ClassifyRequest:
    return decode_classify(payload, NO_CONTEXT, max_sequences=4, max_answer_bytes=1200)


@given(st.dictionaries(FIELDS, VALUES, max_size=6))
def test_any_body_is_a_request_or_rejected(payload: dict[str, object]) -> None:
    try:
        request = decode(payload)
    except ServiceError:
        return
    assert isinstance(request.input, TokenInput | TextInput)


def test_every_field_arrives() -> None:
    request = decode(
        {
            "model": "m",
            "text": ["a", ["b", "c"]],
            "top_k": 2,
            "raw_scores": True,
            "aggregation": "first",
            "stride": 3,
            "max_answer_length": 4,
            "truncation": "left",
        }
    )
    assert (request.model, request.input, request.truncation) == ("m", TextInput(("a", ("b", "c"))), Truncation.LEFT)
    assert request.options == ClassifyOptions(2, True, Aggregation.FIRST, 3, 4)
    assert request.max_values == 100


def test_null_is_the_same_as_absent() -> None:
    body = {"token_ids": [[1]]}
    absent, null = decode(body), decode(dict.fromkeys(ClassifyBody.model_fields) | body)
    assert null.options == absent.options == ClassifyOptions()
    assert (null.truncation, null.model) == (absent.truncation, absent.model) == (Truncation.NONE, None)


@pytest.mark.parametrize(
    ("question", "context", "pairs"),
    [
        ("q", "c", (("q", "c"),)),
        ("q", ["c", "d"], (("q", "c"), ("q", "d"))),
        (["q", "r"], "c", (("q", "c"), ("r", "c"))),
        (["q", "r"], ["c", "d"], (("q", "c"), ("r", "d"))),
        ("q", [], ()),
    ],
)
def test_questions_go_with_contexts(question: object, context: object, pairs: tuple[tuple[str, str], ...]) -> None:
    assert decode({"question": question, "context": context}).input == TextInput(pairs)
