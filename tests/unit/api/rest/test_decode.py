from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.api.rest.decode import decode
from electra_serve.errors import InvalidInput, MalformedRequest, PayloadTooLarge, ServiceError
from electra_serve.serving.request_context import NO_CONTEXT, Deadline, Priority, RequestContext
from electra_serve.tensors import DEFAULT_OUTPUTS, Output, TextInput, TokenInput, Truncation
from tests.unit.api.rest.rejections import rejection
from tests.unit.api.rest.strategies import json_values

FIELDS = (
    "model",
    "token_ids",
    "segment_ids",
    "padding_mask",
    "text",
    "outputs",
    "encoding_format",
    "truncate",
    "truncation",
)
MAX_SEQUENCES = 8


def rejected(payload: object) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        decode(payload, NO_CONTEXT, max_sequences=MAX_SEQUENCES, max_answer_bytes=1200)
    return caught.value


def test_ids_with_all_that_goes_with_them() -> None:
    payload = {
        "model": "electra_demo",
        "token_ids": [[1, 2], [3]],
        "segment_ids": [[0, 1], [0]],
        "padding_mask": [[1, 0], [1]],
        "outputs": ["mean_output", "cls_output", "mean_output"],
        "encoding_format": "base64",
        "truncate": True,
    }
    decoded = decode(
        payload,
        RequestContext("r", "192.0.2.7", Priority.HIGH, Deadline.after(5)),
        max_sequences=MAX_SEQUENCES,
        max_answer_bytes=1200,
    )
    request = decoded.request
    assert isinstance(request.input, TokenInput)
    assert [row.tolist() for row in request.input.token_ids] == [[1, 2], [3]]
    assert [row.tolist() for row in request.input.segment_ids or ()] == [[0, 1], [0]]
    assert [row.tolist() for row in request.input.padding_mask or ()] == [[1, 0], [1]]
    assert (request.model, request.truncation) == ("electra_demo", Truncation.LONGEST_FIRST)
    assert (request.context.client, request.context.priority) == ("192.0.2.7", Priority.HIGH)
    assert request.context.timeout_s is not None
    assert 0 < request.context.timeout_s <= 5
    assert request.outputs == {Output.MEAN, Output.CLS}
    assert decoded.encoding_format == "base64"


@pytest.mark.parametrize(
    "absent", [{}, dict.fromkeys(("model", "token_ids", "segment_ids", "padding_mask", "outputs"))]
)
def test_text_with_nothing_else_and_null_is_nothing(absent: dict[str, None]) -> None:
    decoded = decode(
        {"text": ["a", ["b", "c"]]} | absent, NO_CONTEXT, max_sequences=MAX_SEQUENCES, max_answer_bytes=1200
    )
    assert decoded.request.input == TextInput(("a", ("b", "c")))
    assert (decoded.request.model, decoded.request.outputs) == (None, DEFAULT_OUTPUTS)
    assert (decoded.request.truncation, decoded.encoding_format) == (Truncation.NONE, "float")


def test_segments_and_mask_stay_absent() -> None:
    request = decode({"token_ids": [[1]]}, NO_CONTEXT, max_sequences=MAX_SEQUENCES, max_answer_bytes=1200).request
    assert isinstance(request.input, TokenInput)
    assert request.input.segment_ids is None
    assert request.input.padding_mask is None


@pytest.mark.parametrize("payload", [None, 1, "x", [], [{"text": "a"}], True])
def test_the_body_must_be_an_object(payload: object) -> None:
    assert type(rejected(payload)) is MalformedRequest


def test_unknown_fields_are_rejected_and_not_repeated() -> None:
    error = rejected({"text": "a", "tokens_ids": [[1]]})
    assert type(error) is MalformedRequest
    assert "tokens_ids" not in error.message
    assert all(field in error.message for field in FIELDS)


@pytest.mark.parametrize("payload", [{}, {"token_ids": None}, {"text": None}, {"text": "a", "token_ids": [[1]]}])
def test_exactly_one_input_is_needed(payload: object) -> None:
    error = rejected(payload)
    assert type(error) is MalformedRequest
    assert "exactly one of token_ids and text" in error.message


@pytest.mark.parametrize("field", ["segment_ids", "padding_mask"])
def test_segments_and_mask_do_not_go_with_text(field: str) -> None:
    assert type(rejected({"text": "a", field: [[1]]})) is MalformedRequest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 1),
        ("model", ["electra_demo"]),
        ("truncate", 1),
        ("truncate", "true"),
        ("truncation", 1),
        ("truncation", ["left"]),
        ("outputs", "mean_output"),
        ("outputs", {"mean_output": 1}),
        ("outputs", [1]),
        ("outputs", ["mean_output", None]),
        ("encoding_format", 1),
        ("token_ids", "1"),
        ("segment_ids", 1),
        ("padding_mask", {}),
    ],
)
def test_a_field_of_the_wrong_type_is_malformed(field: str, value: object) -> None:
    error = rejected({"token_ids": [[1]]} | {field: value})
    assert type(error) is MalformedRequest
    assert error.field == field


@pytest.mark.parametrize(
    ("field", "value", "valid"),
    [
        ("outputs", ["secret"], "sequence_output, pooled_output, cls_output, mean_output"),
        ("outputs", ["mean_output", "Mean_output"], "sequence_output, pooled_output, cls_output, mean_output"),
        ("encoding_format", "hex", "float, base64"),
    ],
)
def test_a_name_that_does_not_exist_is_invalid(field: str, value: object, valid: str) -> None:
    error = rejected({"text": "a", field: value})
    assert type(error) is InvalidInput
    assert error.field == field
    assert valid in error.message
    assert "secret" not in error.message


@given(json_values | st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_any_json_is_a_request_or_rejected_in_few_words(payload: object) -> None:
    error = rejection(lambda: decode(payload, NO_CONTEXT, max_sequences=MAX_SEQUENCES, max_answer_bytes=1200))
    assert error is None or (
        type(error) in {MalformedRequest, InvalidInput, PayloadTooLarge} and len(error.message) < 200
    )


@pytest.mark.parametrize("field", ["token_ids", "segment_ids", "padding_mask", "text"])
def test_too_many_rows_are_rejected_before_any_is_looked_at(field: str) -> None:
    payload = {"token_ids": [[1]]} if field in {"segment_ids", "padding_mask"} else {}
    error = rejected(payload | {field: [None] * (MAX_SEQUENCES + 1)})
    assert isinstance(error, PayloadTooLarge)
    assert error.field == field
    assert not isinstance(rejected(payload | {field: [None] * MAX_SEQUENCES}), PayloadTooLarge)


@pytest.mark.parametrize(
    ("fields", "truncation"),
    [
        ({}, Truncation.NONE),
        ({"truncate": True}, Truncation.LONGEST_FIRST),
        ({"truncation": None, "truncate": True}, Truncation.LONGEST_FIRST),
        ({"truncation": "none"}, Truncation.NONE),
        ({"truncation": "left"}, Truncation.LEFT),
        ({"truncation": "only_second", "truncate": True}, Truncation.ONLY_SECOND),
    ],
)
def test_truncation_and_truncate_are_one_rule(fields: dict[str, object], truncation: Truncation) -> None:
    decoded = decode({"text": "a"} | fields, NO_CONTEXT, max_sequences=MAX_SEQUENCES, max_answer_bytes=1200)
    assert decoded.request.truncation is truncation


def test_truncation_is_one_of_those_there_are() -> None:
    error = rejected({"text": "a", "truncation": "Right"})
    assert (type(error), error.field) == (InvalidInput, "truncation")
    assert "none, right, left, longest_first, only_first, only_second" in error.message


def test_truncation_must_not_contradict_truncate() -> None:
    error = rejected({"text": "a", "truncation": "none", "truncate": True})
    assert (type(error), error.field) == (MalformedRequest, "truncation")


def test_null_is_the_same_as_absent() -> None:
    null = decode(
        dict.fromkeys(FIELDS) | {"token_ids": [[1]]}, NO_CONTEXT, max_sequences=MAX_SEQUENCES, max_answer_bytes=1200
    )
    assert (null.request.truncation, null.encoding_format) == (Truncation.NONE, "float")
    assert (null.request.outputs, null.request.model) == (DEFAULT_OUTPUTS, None)
