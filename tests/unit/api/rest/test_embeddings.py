"""`POST /v1/embeddings`, as OpenAI's clients send and read it."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from electra_serve import errors
from electra_serve.api.rest.openai.errors import as_openai_error
from electra_serve.api.rest.problems import PROBLEM_TYPES, Failure
from electra_serve.serving.sequences import renamed_field
from electra_serve.tensors import TextInput, TokenInput
from tests.fake_service import TRUNCATED_LENGTH
from tests.unit.api.rest.conftest import Rest
from tests.unit.api.rest.strategies import json_values

PATH = "/v1/embeddings"


async def post(client: httpx.AsyncClient, **members: object) -> httpx.Response:
    return await client.post(PATH, json=members)


async def test_texts_to_vectors(client: httpx.AsyncClient, rest: Rest) -> None:
    response = await post(client, input=["a", "bc"], model="electra_demo", user="somebody", unknown=1)
    assert response.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [97.0, 97.0]},
            {"object": "embedding", "index": 1, "embedding": [98.5, 98.5]},
        ],
        "model": "electra_demo",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    assert response.headers["x-truncated-inputs"] == "0"
    request = rest.service.embedded[0]
    assert (request.input, request.model, request.normalize) == (TextInput(("a", "bc")), "electra_demo", True)
    assert rest.counted(model="electra_demo", code="ok") == 1


async def test_a_text_to_bytes(client: httpx.AsyncClient) -> None:
    (item,) = (await post(client, input="a", encoding_format="base64")).json()["data"]
    assert np.frombuffer(base64.b64decode(item["embedding"]), "<f4").tolist() == [97.0, 97.0]


@pytest.mark.parametrize("given_format", [{}, {"encoding_format": None}, {"encoding_format": "float"}])
async def test_null_is_the_same_as_absent(client: httpx.AsyncClient, given_format: dict[str, object]) -> None:
    response = await post(client, input="a", dimensions=None, user=None, prompt_name=None, **given_format)
    assert response.json()["data"][0]["embedding"] == [97.0, 97.0]


async def test_an_empty_text_has_a_vector(client: httpx.AsyncClient) -> None:
    assert len((await post(client, input="")).json()["data"]) == 1


async def test_truncated_inputs_are_counted(client: httpx.AsyncClient) -> None:
    response = await post(client, input=["a", "b" * (TRUNCATED_LENGTH + 1)])
    assert response.headers["x-truncated-inputs"] == "1"


@pytest.mark.parametrize(("value", "rows"), [([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])])
async def test_ids_reach_the_service(client: httpx.AsyncClient, rest: Rest, value: object, rows: object) -> None:
    await post(client, input=value, dimensions=2, input_type="query", prompt_name="query")
    request = rest.service.embedded[0]
    assert isinstance(request.input, TokenInput)
    assert [row.tolist() for row in request.input.token_ids] == rows
    assert (request.dimensions, request.input_type, request.prompt_name) == (2, "query", "query")


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({}, "input"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 1}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [[]], "dimensions": "2"}, "dimensions"),
        ({"input": ["a", None]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "encoding_format": 1}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": True}, "dimensions"),
        ({"input": "a", "model": 7}, "model"),
        ({"input": "a", "prompt_name": 7}, "prompt_name"),
        ({"input": [[1, "a"]]}, "input[0]"),
    ],
)
async def test_bad_requests(client: httpx.AsyncClient, members: dict[str, object], param: str) -> None:
    response = await client.post(PATH, json=members)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)


@pytest.mark.parametrize(
    ("error", "status", "kind", "retry"),
    [
        (errors.InvalidInput("no", field="input[1]"), 400, "invalid_request_error", None),
        (errors.ModelNotFound("no", field="model"), 404, "invalid_request_error", None),
        (errors.Overloaded("full", retry_after_s=1.5), 429, "rate_limit_error", "true"),
        (errors.ModelNotReady("no"), 503, "server_error", "true"),
        (errors.DeadlineExceeded("late"), 504, "server_error", "false"),
        (errors.EngineFailure("no"), 500, "server_error", "false"),
        (errors.InvalidInput("no", field="text[2]"), 400, "invalid_request_error", None),
    ],
)
async def test_errors(
    client: httpx.AsyncClient, rest: Rest, error: errors.ServiceError, status: int, kind: str, retry: str | None
) -> None:
    rest.service.fail_with(error)
    response = await post(client, input="a")
    found = response.json()["error"]
    assert response.headers["content-type"] == "application/json"
    assert (response.status_code, found["type"], found["code"], found["param"]) == (
        status,
        kind,
        error.code,
        renamed_field(error.field, "input"),
    )
    assert response.headers.get("x-should-retry") == retry
    if retry == "true":
        assert int(response.headers["retry-after"]) >= 1
        assert int(response.headers["retry-after-ms"]) > 0
    assert response.headers["x-request-id"]


def test_every_status_has_a_form() -> None:
    for kind in PROBLEM_TYPES.values():
        body = as_openai_error(Failure(kind.status, kind.title, "detail", "code", "r")).body
        assert isinstance(body, dict)
        assert body["error"]["message"] == "detail"


@pytest.mark.parametrize(("method", "status"), [("GET", 405), ("PUT", 405)])
async def test_other_methods_have_the_form_too(client: httpx.AsyncClient, method: str, status: int) -> None:
    response = await client.request(method, PATH)
    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_more_inputs_than_allowed_are_rejected(client: httpx.AsyncClient) -> None:
    response = await post(client, input=["a"] * 2049)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "payload_too_large")


@given(json_values | st.fixed_dictionaries({"input": json_values, "encoding_format": json_values}))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_body_is_a_fault(client: httpx.AsyncClient, body: Any) -> None:
    content = json.dumps(body)  # NaN and infinities included
    response = await client.post(PATH, content=content, headers={"content-type": "application/json"})
    assert response.status_code in {200, 400, 413}
    if response.status_code != 200:
        assert response.json()["error"].keys() == {"message", "type", "param", "code"}
