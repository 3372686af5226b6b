"""Rerank routes, as clients of Cohere, Jina, vLLM and Text Embeddings Inference send and read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from structlog.testing import LogCapture

from electra_serve import errors
from electra_serve.api.security.api_keys import KeyRing
from electra_serve.api.security.authentication import Authenticator
from electra_serve.settings.schema import ApiSettings
from electra_serve.tensors import TextInput, Truncation
from tests.fake_service import READY, TRUNCATED_LENGTH, FakeService
from tests.unit.api.rest.conftest import Rest, connect
from tests.unit.api.rest.strategies import json_values

V1, V2, BARE, SCORE = "/v1/rerank", "/v2/rerank", "/rerank", "/score"
RERANKS: Final = (V1, V2, BARE)
PATHS: Final = (*RERANKS, SCORE)
SCHEMAS: Final = {V1: "RerankAnswer", V2: "RerankAnswer", BARE: "RerankAnswer", SCORE: "ScoreAnswer"}
BODY: Final[Mapping[str, Any]] = {"query": "q", "documents": ["", "bb", "a"]}
RANKER: Final = replace(READY, labels=("relevant",), activation="sigmoid")
SCORES: Final = [0.5, 0.7310586, 0.880797]
"""Sigmoid of the numbers of characters from 0 to 2."""
ERROR_MEMBERS: Final = {"message", "detail", "error"}


async def post(client: httpx.AsyncClient, path: str = V1, **members: object) -> httpx.Response:
    return await client.post(path, json={**BODY, **members})


@pytest.mark.parametrize("path", RERANKS)
async def test_documents_come_back_with_the_best_first(client: httpx.AsyncClient, rest: Rest, path: str) -> None:
    headers = {"x-request-id": "order-7"}
    body = {**BODY, "model": "electra_demo", "max_tokens_per_doc": 7, "unknown": [1]}
    response = await client.post(path, json=body, headers=headers)
    assert response.json() == {
        "id": "order-7",
        "model": "electra_demo",
        "results": [
            {"index": 1, "relevance_score": SCORES[2]},
            {"index": 2, "relevance_score": SCORES[1]},
            {"index": 0, "relevance_score": SCORES[0]},
        ],
        "meta": {"api_version": {"version": "2" if path == V2 else "1"}, "billed_units": {"search_units": 1}},
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
    }
    assert response.headers["x-truncated-inputs"] == "0"
    request = rest.service.reranked[0]
    assert request.input == TextInput((("q", ""), ("q", "bb"), ("q", "a")))
    assert (request.model, request.truncation) == ("electra_demo", Truncation.ONLY_SECOND)
    assert rest.counted(model="electra_demo", code="ok") == 1


async def test_the_best_documents_with_their_texts(client: httpx.AsyncClient) -> None:
    documents = [{"text": "a"}, "bb", {"text": "ccc", "title": "ignored", "tags": ["x", {"y": 1}]}]
    response = await post(client, documents=documents, top_n=2, return_documents=True, rank_fields=["title"])
    assert [(item["index"], item["document"]) for item in response.json()["results"]] == [
        (2, {"text": "ccc"}),
        (1, {"text": "bb"}),
    ]


@pytest.mark.parametrize(
    "members", [{"raw_scores": True}, {"use_activation": False}, {"activation": False, "raw_scores": None}]
)
async def test_raw_scores_are_logits(client: httpx.AsyncClient, members: dict[str, object]) -> None:
    response = await post(client, V1, **members)
    assert [item["relevance_score"] for item in response.json()["results"]] == [2.0, 1.0, 0.0]


async def test_null_is_the_same_as_absent(client: httpx.AsyncClient) -> None:
    names = ("model", "top_n", "return_documents", "raw_scores", "texts", "use_activation")
    response = await post(client, BARE, **dict.fromkeys(names))
    assert [item["index"] for item in response.json()["results"]] == [1, 2, 0]
    assert "document" not in response.json()["results"][0]


async def test_more_results_than_documents_are_all(client: httpx.AsyncClient) -> None:
    assert len((await post(client, top_n=99)).json()["results"]) == 3


async def test_truncated_documents_are_counted(client: httpx.AsyncClient) -> None:
    response = await post(client, documents=["a", "b" * (TRUNCATED_LENGTH + 1)])
    assert response.headers["x-truncated-inputs"] == "1"


async def test_a_thousand_objects_are_served_and_one_more_is_not(client: httpx.AsyncClient) -> None:
    documents = [{"text": f'{{:["{number}', "id": number, "source": "a: b"} for number in range(1000)]
    response = await post(client, documents=documents, return_documents=True)
    assert response.status_code == 200
    results = response.json()["results"]
    assert {item["index"]: item["document"] for item in results} == {
        index: {"text": document["text"]} for index, document in enumerate(documents)
    }
    more = await post(client, documents=[*documents, "a"])
    assert (more.status_code, more.json()["error"]["code"]) == (413, "payload_too_large")
    assert more.json()["error"]["param"] == "documents"


@pytest.mark.parametrize(("first", "many"), [("q", ["", "bb", "a"]), (["q"], ["", "bb", "a"])])
async def test_scores_of_one_text_with_many(client: httpx.AsyncClient, rest: Rest, first: object, many: object) -> None:
    response = await client.post(SCORE, json={"text_1": first, "text_2": many}, headers={"x-request-id": "s-1"})
    answer = response.json()
    assert (answer["object"], answer["id"], answer["model"]) == ("list", "s-1", "electra_demo")
    assert answer["data"] == [
        {"index": 0, "object": "score", "score": SCORES[0]},
        {"index": 1, "object": "score", "score": SCORES[2]},
        {"index": 2, "object": "score", "score": SCORES[1]},
    ]
    assert answer["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert rest.service.reranked[0].input == TextInput((("q", ""), ("q", "bb"), ("q", "a")))


async def test_scores_of_pairs(client: httpx.AsyncClient, rest: Rest) -> None:
    response = await client.post(SCORE, json={"text_1": ["p", "q"], "text_2": ["a", "bb"], "raw_scores": True})
    assert [item["score"] for item in response.json()["data"]] == [1.0, 2.0]
    assert rest.service.reranked[0].input == TextInput((("p", "a"), ("q", "bb")))


async def test_a_score_of_one_pair(client: httpx.AsyncClient) -> None:
    response = await client.post(SCORE, json={"text_1": "q", "text_2": "a"})
    assert [item["index"] for item in response.json()["data"]] == [0]


async def test_texts_get_a_bare_list(client: httpx.AsyncClient, rest: Rest) -> None:
    body = {"query": "q", "texts": ["a", "bb"], "return_text": True, "truncation_direction": "Right"}
    response = await client.post(BARE, json=body)
    assert response.json() == [
        {"index": 1, "score": SCORES[2], "text": "bb"},
        {"index": 0, "score": SCORES[1], "text": "a"},
    ]
    assert rest.service.reranked[0].truncation is Truncation.ONLY_SECOND


@pytest.mark.parametrize(
    ("members", "truncation"),
    [
        ({"truncate": None}, Truncation.ONLY_SECOND),
        ({"truncate": True, "truncation_direction": "LEFT"}, Truncation.LEFT),
        ({"truncate": False}, Truncation.NONE),
    ],
)
async def test_truncation_of_texts(
    client: httpx.AsyncClient, rest: Rest, members: dict[str, object], truncation: Truncation
) -> None:
    response = await client.post(BARE, json={"query": "q", "texts": ["a"], "raw_scores": True, **members})
    assert response.json() == [{"index": 0, "score": 1.0}]
    assert rest.service.reranked[0].truncation is truncation


@pytest.mark.parametrize(("model", "named"), [(None, "ranker"), ("electra_demo", "electra_demo")])
async def test_texts_have_a_default_model(rest: Rest, model: str | None, named: str) -> None:
    async with connect(rest.app(apis=ApiSettings(tei_model="ranker"))) as client:
        await client.post(BARE, json={"query": "q", "texts": ["a"], "model": model})
        await client.post(BARE, json={"query": "q", "documents": ["a"], "model": model})
    assert [request.model for request in rest.service.reranked] == [named, model]


@pytest.mark.parametrize("path", [V1, V2])
async def test_other_paths_have_no_texts(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, json={"query": "q", "texts": ["a"]})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "documents")


async def test_without_tei_texts_are_ignored(rest: Rest) -> None:
    async with connect(rest.app(apis=ApiSettings(tei=False))) as client:
        response = await client.post(BARE, json={"query": "q", "texts": ["a"]})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "documents")
        assert (await post(client, BARE)).status_code == 200


@pytest.mark.parametrize("path", PATHS)
async def test_the_family_can_be_switched_off(rest: Rest, path: str) -> None:
    async with connect(rest.app(apis=ApiSettings(rerank=False))) as client:
        response = await post(client, path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


BAD: Final = [
    (V1, {"query": None}, "query"),
    (V1, {"query": 1}, "query"),
    (V1, {"documents": None}, "documents"),
    (V1, {"documents": "a"}, "documents"),
    (V1, {"documents": []}, "documents"),
    (V1, {"documents": ["a", 1]}, "documents[1]"),
    (V1, {"documents": ["a", {"title": "b"}]}, "documents[1]"),
    (V1, {"documents": [{"text": None}]}, "documents[0]"),
    (V1, {"documents": [["a"]]}, "documents[0]"),
    (V1, {"top_n": 0}, "top_n"),
    (V1, {"top_n": "2"}, "top_n"),
    (V1, {"top_n": 2**70}, "top_n"),
    (V1, {"model": 7}, "model"),
    (V1, {"return_documents": 1}, "return_documents"),
    (V1, {"raw_scores": "no"}, "raw_scores"),
    (SCORE, {"text_1": "a"}, "text_2"),
    (SCORE, {"text_2": "a"}, "text_1"),
    (SCORE, {"text_1": ["a", "b"], "text_2": ["a"]}, "text_1"),
    (SCORE, {"text_1": "a", "text_2": ["a", 1]}, "text_2[1]"),
    (SCORE, {"text_1": "a", "text_2": []}, "text_2"),
]


@pytest.mark.parametrize(("path", "members", "param"), BAD)
async def test_bad_requests(client: httpx.AsyncClient, path: str, members: dict[str, object], param: str) -> None:
    response = await post(client, path, **members)
    answer = response.json()
    assert response.status_code == 400
    assert answer.keys() == ERROR_MEMBERS
    assert answer["message"] == answer["detail"] == answer["error"]["message"]
    assert (answer["error"]["type"], answer["error"]["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize(
    ("members", "status", "message"),
    [
        ({"texts": ["a", {"text": "b"}]}, 422, "texts[1]: texts must have strings only"),
        ({"texts": []}, 422, "texts must have at least one text"),
        ({"texts": ["a"], "query": None}, 422, "query is required"),
        ({"texts": ["a"], "truncation_direction": "up"}, 422, "truncation_direction must be left or right"),
        ({"texts": ["a"], "truncate": "yes"}, 422, "truncate must be true or false"),
        ({"texts": ["a"] * 1001}, 413, "texts must have at most 1000 texts"),
    ],
)
async def test_bad_texts_have_an_error_of_tei(
    client: httpx.AsyncClient, members: dict[str, object], status: int, message: str
) -> None:
    response = await client.post(BARE, json={"query": "q", **members})
    answer = response.json()
    assert (response.status_code, answer.keys()) == (status, {"error", "error_type"})
    assert answer["error"].startswith(message)
    assert answer["error_type"] == "Validation"


async def test_a_text_is_enough(client: httpx.AsyncClient) -> None:
    response = await client.post(BARE, json={"query": "q", "texts": "bb"})
    assert response.json() == [{"index": 0, "score": SCORES[2]}]


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (errors.InvalidInput("no", field="documents[1]"), 400, None),
        (errors.ModelNotFound("no", field="model"), 404, None),
        (errors.Overloaded("full", retry_after_s=1.5), 429, "2"),
        (errors.ModelNotReady("no"), 503, "1"),
        (errors.DeadlineExceeded("late"), 504, None),
        (errors.EngineFailure("no"), 500, None),
    ],
)
@pytest.mark.parametrize("path", PATHS)
async def test_errors(
    client: httpx.AsyncClient, rest: Rest, path: str, error: errors.ServiceError, status: int, retry: str | None
) -> None:
    rest.service.fail_with(error)
    response = await post(client, path, text_1="a", text_2="b")
    answer = response.json()
    assert response.headers["content-type"] == "application/json"
    assert (response.status_code, response.headers.get("retry-after")) == (status, retry)
    assert answer.keys() == ERROR_MEMBERS
    assert (answer["error"]["code"], answer["error"]["param"]) == (error.code, error.field)
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.InvalidInput("no", field="texts[1]"), 422, "Validation"),
        (errors.ModelNotFound("no", field="model"), 424, "Backend"),
        (errors.EngineFailure("no"), 424, "Backend"),
        (errors.Overloaded("full", retry_after_s=1.5), 429, "Overloaded"),
        (errors.ModelNotReady("no"), 503, "Unhealthy"),
    ],
)
@pytest.mark.parametrize("path", [BARE, "/"])
async def test_errors_of_tei(rest: Rest, path: str, error: errors.ServiceError, status: int, kind: str) -> None:
    service = FakeService(RANKER)
    service.fail_with(error)
    async with connect(replace(rest, service=service).app()) as client:
        response = await client.post(path, json={"query": "q", "texts": ["a"]})
    answer = response.json()
    assert (response.status_code, answer.keys()) == (status, {"error", "error_type"})
    assert answer["error_type"] == kind


async def test_the_default_route_of_tei_reranks_with_a_cross_encoder(rest: Rest) -> None:
    async with connect(replace(rest, service=FakeService(RANKER)).app()) as client:
        ranked = await client.post("/", json={"query": "q", "texts": ["a", "bb"], "raw_scores": True})
        missing = await client.post("/", json={"query": "q"})
    assert ranked.json() == [{"index": 1, "score": 2.0}, {"index": 0, "score": 1.0}]
    assert (missing.status_code, missing.json()["error_type"]) == (422, "Validation")


async def test_without_rerank_the_default_route_of_tei_classifies(rest: Rest) -> None:
    app = replace(rest, service=FakeService(RANKER)).app(apis=ApiSettings(rerank=False))
    async with connect(app) as client:
        response = await client.post("/", json={"inputs": "a"})
    assert response.status_code == 200


@pytest.mark.parametrize("path", PATHS)
async def test_another_method_has_the_form_too(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json().keys()) == (405, ERROR_MEMBERS)


@pytest.mark.parametrize("path", PATHS)
async def test_a_key_is_needed_if_keys_are_configured(rest: Rest, tmp_path: Path, path: str) -> None:
    (tmp_path / "keys").write_text("shop-0123456789abcdef")
    keys = KeyRing(tmp_path / "keys", structlog.wrap_logger(None, [LogCapture()]))
    async with connect(rest.app(authenticator=Authenticator(keys))) as client:
        response = await post(client, path, text_1="a", text_2="b")
    assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthenticated")
    assert rest.service.reranked == []


@pytest.mark.parametrize("path", PATHS)
async def test_examples_get_the_documented_response(rest: Rest, client: httpx.AsyncClient, path: str) -> None:
    document = rest.app().openapi()
    operation = document["paths"][path]["post"]
    assert operation["tags"] == ["rerank"]
    content = operation["requestBody"]["content"]["application/json"]
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    for example in content["examples"].values():
        response = await client.post(path, json=example["value"])
        assert response.status_code == 200
        for schema, value in ((content["schema"], example["value"]), (answer, response.json())):
            Draft202012Validator({"components": document["components"], **schema}).validate(value)


BODIES: Final = json_values | st.fixed_dictionaries(
    {},
    optional={
        "query": st.text() | json_values,
        "documents": st.lists(st.text() | st.fixed_dictionaries({"text": st.text()})) | json_values,
        "texts": st.lists(st.text()) | json_values,
        "text_1": st.text() | st.lists(st.text()) | json_values,
        "text_2": st.text() | st.lists(st.text()) | json_values,
        "top_n": st.integers() | json_values,
        "raw_scores": st.booleans() | json_values,
        "return_documents": st.booleans() | json_values,
        "truncation_direction": st.sampled_from(["left", "Right"]) | json_values,
        "model": json_values,
    },
)


@pytest.mark.parametrize("path", PATHS)
@given(body=BODIES)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_body_is_a_fault(client: httpx.AsyncClient, path: str, body: Any) -> None:
    content = json.dumps(body)  # NaN and infinities included
    response = await client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code in {200, 400, 413, 422}
    if response.status_code == 200:
        return
    if path == BARE and "texts" in content and response.json().keys() == {"error", "error_type"}:
        return
    assert response.json().keys() == ERROR_MEMBERS
