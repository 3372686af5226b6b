from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fastapi.openapi.models import OpenAPI
from jsonschema import Draft202012Validator
from structlog.testing import LogCapture

from electra_serve import __version__
from electra_serve.api.rest import examples
from electra_serve.api.rest.problem_middleware import is_probe
from electra_serve.api.rest.problems import PROBLEM_TYPES
from electra_serve.api.rest.tei import routes as tei
from electra_serve.api.security.api_keys import KeyRing
from electra_serve.api.security.authentication import Authenticator
from electra_serve.errors import Cancelled, Conflict, ModelLoadFailed, Unauthenticated, Unsupported
from tests.unit.api.rest.conftest import Rest

JsonObject = dict[str, Any]

OIP_SERVER = {"/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/stats", "/v2/repository/index"}
OIP_MODELS = {
    f"/v2/models/{{name}}{version}{action}"
    for version in ("", "/versions/{version}")
    for action in ("", "/infer", "/ready", "/config", "/stats")
}
FAMILIES = {"/v1/embeddings", "/v1/rerank", "/v2/rerank", "/rerank", "/score", *tei.PATHS, *OIP_SERVER, *OIP_MODELS}
"""Paths of other servers' APIs."""


@pytest.fixture
def document(rest: Rest) -> JsonObject:
    return rest.app().openapi()


def validator(document: JsonObject, schema: JsonObject) -> Draft202012Validator:
    """Checks values against a schema whose references point into the document."""
    return Draft202012Validator({"components": document["components"], **schema})


def operations(document: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    for path, item in document["paths"].items():
        for operation in item.values():
            yield path, operation


def bodies(document: JsonObject) -> Iterator[JsonObject]:
    """Yields each documented body with a media type, of requests and of responses."""
    for _, operation in operations(document):
        described = [operation.get("requestBody", {}), *operation["responses"].values()]
        yield from (media for body in described for media in body.get("content", {}).values())


def test_the_document_is_openapi(document: JsonObject) -> None:
    OpenAPI.model_validate(document)
    assert document["openapi"].startswith("3.1")
    assert document["info"]["version"] == __version__
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_path_is_in_it(document: JsonObject) -> None:
    paths = {"/v1/encode", "/v1/classify", "/v1/tokenize", "/v1/models", "/v1/models/{name}"}
    paths |= {"/livez", "/readyz", "/metrics"}
    assert set(document["paths"]) == paths | FAMILIES
    names = [operation["operationId"] for path, operation in operations(document) if path not in FAMILIES]
    assert names == ["encode", "classify", "tokenize", "list_models", "get_model", "livez", "readyz", "metrics"]


def test_every_example_follows_its_schema(document: JsonObject) -> None:
    checked = 0
    for media in bodies(document):
        for example in media.get("examples", {}).values():
            validator(document, media["schema"]).validate(example["value"])
            checked += 1
    assert checked >= len(examples.REQUESTS) + len(examples.RESPONSES) + len(examples.CLASSIFY_REQUESTS)


@pytest.mark.parametrize("path", ["/v1/encode", "/v1/classify", "/v1/tokenize"])
def test_every_error_that_a_caller_can_see_is_documented(document: JsonObject, path: str) -> None:
    responses = document["paths"][path]["post"]["responses"]
    documented = {
        (int(status), code)
        for status, response in responses.items()
        for code in response["content"].get("application/problem+json", {}).get("examples", {})
    }
    unseen = {Unauthenticated, Cancelled, Conflict, ModelLoadFailed, Unsupported}
    assert documented == {(kind.status, cls.code) for cls, kind in PROBLEM_TYPES.items() if cls not in unseen}
    assert "default" in responses


@pytest.mark.parametrize("name", examples.REQUESTS)
async def test_example_requests_get_documented_responses(
    client: httpx.AsyncClient, document: JsonObject, name: str
) -> None:
    request = examples.REQUESTS[name]["value"]
    response = await client.post("/v1/encode", json=request)
    assert response.status_code == 200
    validator(document, {"$ref": "#/components/schemas/EncodeAnswer"}).validate(response.json())


@pytest.mark.parametrize("name", examples.CLASSIFY_REQUESTS)
async def test_example_classifications_get_the_documented_response(
    client: httpx.AsyncClient, document: JsonObject, name: str
) -> None:
    response = await client.post("/v1/classify", json=examples.CLASSIFY_REQUESTS[name]["value"])
    assert response.status_code == 200
    validator(document, {"$ref": "#/components/schemas/ClassifyAnswer"}).validate(response.json())


@pytest.mark.parametrize("name", examples.TOKENIZE_REQUESTS)
async def test_example_tokenizations_get_the_documented_response(
    client: httpx.AsyncClient, document: JsonObject, name: str
) -> None:
    response = await client.post("/v1/tokenize", json=examples.TOKENIZE_REQUESTS[name]["value"])
    assert response.status_code == 200
    validator(document, {"$ref": "#/components/schemas/TokenizeAnswer"}).validate(response.json())


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/v1/models", "ModelsAnswer"),
        ("/v1/models/electra_demo", "ListedModel"),
        ("/v1/models/next", "ListedModel"),
        ("/livez", "Probe"),
        ("/readyz", "Probe"),
        ("/v1/models/unknown", "Problem"),
        ("/nowhere", "Problem"),
    ],
)
async def test_responses_follow_their_schemas(
    client: httpx.AsyncClient, document: JsonObject, path: str, schema: str
) -> None:
    content = (await client.get(path)).json()
    validator(document, {"$ref": f"#/components/schemas/{schema}"}).validate(content)
    assert content.keys() <= document["components"]["schemas"][schema]["properties"].keys()


async def test_the_served_document_is_the_same_each_time(client: httpx.AsyncClient, document: JsonObject) -> None:
    for _ in range(2):
        assert (await client.get("/openapi.json")).json() == document


def test_where_keys_are_asked_for_the_document_says_so(rest: Rest, tmp_path: Path, document: JsonObject) -> None:
    (tmp_path / "keys").write_text("shop-0123456789abcdef")
    authenticator = Authenticator(KeyRing(tmp_path / "keys", structlog.wrap_logger(None, [LogCapture()])))
    keyed = rest.app(authenticator=authenticator).openapi()
    OpenAPI.model_validate(keyed)
    assert keyed["components"]["securitySchemes"].keys() == {"bearer", "api_key"}
    for path, operation in operations(keyed):
        asks = not is_probe(path)
        assert operation.get("security") == ([{"bearer": []}, {"api_key": []}] if asks else None)
        assert ("401" in operation["responses"]) == asks
    assert "securitySchemes" not in document["components"]
