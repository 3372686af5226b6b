"""`POST /v1/tokenize`: decoding, responses and errors."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.api.rest.decode_tokenize import decode_tokenize
from electra_serve.api.rest.schemas import TokenizeBody
from electra_serve.errors import InvalidInput, ServiceError
from electra_serve.serving.request_context import NO_CONTEXT
from electra_serve.serving.tokens import TokenizeRequest
from electra_serve.tensors import TextInput
from tests.unit.api.rest.conftest import Rest
from tests.unit.api.rest.strategies import json_values

FIELDS = st.sampled_from([*TokenizeBody.model_fields, "token_ids"])
VALUES = st.one_of(json_values, st.just(["a", "b"]), st.text(max_size=3), st.booleans())


def decode(payload: object) -> TokenizeRequest:
    return decode_tokenize(payload, NO_CONTEXT, max_sequences=4, max_answer_bytes=1200)


@given(st.one_of(json_values, st.dictionaries(FIELDS, VALUES, max_size=4)))
def test_any_body_is_a_request_or_rejected(payload: object) -> None:
    try:
        request = decode(payload)
    except ServiceError:
        return
    assert 1 <= len(request.input.texts) <= 4


def test_every_field_arrives() -> None:
    request = decode({"model": "m", "text": ["a", ""], "add_special_tokens": False})
    assert (request.model, request.input) == ("m", TextInput(("a", "")))
    assert (request.add_special_tokens, request.prompted, request.all_pieces) == (False, False, True)
    assert request.max_values == 100


def test_null_is_the_same_as_absent() -> None:
    request = decode({"model": None, "text": "a", "add_special_tokens": None})
    assert (request.model, request.add_special_tokens) == (None, True)


async def test_tokens_have_pieces_and_places_in_characters(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/tokenize", json={"text": ["é!", ""]})
    assert response.status_code == 200
    special = {"id": 2, "piece": "[CLS]", "special": True}
    first = [
        {"id": ord(char), "piece": "", "special": False, "start": at, "end": at + 1, "text": char}
        for at, char in enumerate("é!")
    ]
    assert response.json() == {
        "model": "electra_demo",
        "tokens": [[special, *first], [special]],
        "usage": {"sequences": 2, "tokens": 4},
    }


async def test_many_tokens_are_rendered_in_pieces(client: httpx.AsyncClient) -> None:
    text = "ab" * 1500
    (found,) = (await client.post("/v1/tokenize", json={"text": text, "add_special_tokens": False})).json()["tokens"]
    assert "".join(token["text"] for token in found) == text
    assert [token["start"] for token in found] == list(range(3000))


@pytest.mark.parametrize(
    ("body", "status", "code", "field", "says"),
    [
        ([], 400, "malformed_request", None, "the body must be a JSON object"),
        ({}, 400, "malformed_request", "text", "text is required"),
        ({"text": None}, 400, "malformed_request", "text", "text is required"),
        ({"text": 7}, 400, "malformed_request", "text", "a string or a list of strings"),
        ({"text": [["a", "b"]]}, 400, "malformed_request", "text", "a string or a list of strings"),
        ({"text": ["a", None]}, 400, "malformed_request", "text", "a string or a list of strings"),
        ({"text": "a", "model": 7}, 400, "malformed_request", "model", "model must be a string"),
        ({"text": "a", "add_special_tokens": 1}, 400, "malformed_request", "add_special_tokens", "true or false"),
        ({"text": "a", "token_ids": [[1]]}, 400, "malformed_request", None, "add_special_tokens, model, text"),
        ({"text": []}, 422, "invalid_input", "text", "at least one text"),
        ({"text": ["a"] * 257}, 413, "payload_too_large", "text", "at most 256 sequences"),
    ],
)
async def test_bad_bodies_are_problems(
    client: httpx.AsyncClient, rest: Rest, body: object, status: int, code: str, field: str | None, says: str
) -> None:
    response = await client.post("/v1/tokenize", json=body, headers={"x-request-id": "order-7"})
    problem = response.json()
    assert (response.status_code, problem["code"], problem.get("field")) == (status, code, field)
    assert says in problem["detail"]
    assert problem["request_id"] == "order-7"
    assert response.headers["content-type"] == "application/problem+json"
    assert rest.service.tokenized == []
    assert rest.counted(model="electra_demo", code=code) == 1


async def test_errors_of_the_service_are_problems(client: httpx.AsyncClient, rest: Rest) -> None:
    rest.service.fail_with(InvalidInput("model tiny takes token_ids, not text", field="text"))
    response = await client.post("/v1/tokenize", json={"text": "a"})
    assert (response.status_code, response.json()["field"]) == (422, "text")


async def test_a_request_is_counted_and_logged(client: httpx.AsyncClient, rest: Rest) -> None:
    await client.post("/v1/tokenize", json={"text": ["a", "bc"]}, headers={"x-request-id": "order-7"})
    assert rest.counted(model="electra_demo", code="ok") == 1
    (line,) = (call.kwargs for call in rest.log.calls)
    assert (line["method"], line["request_id"], line["sequences"], line["tokens"]) == (
        "POST /v1/tokenize",
        "order-7",
        2,
        5,
    )
