"""Routes of the Open Inference Protocol besides `infer`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import structlog
from jsonschema import Draft202012Validator
from starlette.types import Scope
from structlog.testing import LogCapture

from electra_serve import __version__
from electra_serve.api.rest.oip import examples
from electra_serve.api.rest.protocol import SURPLUS
from electra_serve.api.security.api_keys import KeyRing
from electra_serve.api.security.authentication import Authenticator
from electra_serve.serving.model_info import ModelInfo, ModelState
from electra_serve.settings.schema import ApiSettings
from tests.fake_service import FakeService
from tests.oip_requests import INFER, ids
from tests.unit.api.rest.asgi import Wire, body_message, http_scope
from tests.unit.api.rest.conftest import Rest, connect
from tests.unit.api.rest.models import READY_MODEL

GETS: Final = {
    "/v2": "OipServer",
    "/v2/health/live": "OipLive",
    "/v2/health/ready": "OipReady",
    "/v2/models": "OipModels",
    "/v2/models/stats": "OipStatistics",
    "/v2/models/electra_demo": "OipModel",
    "/v2/models/electra_demo/ready": "OipModelReady",
    "/v2/models/electra_demo/config": "OipConfig",
    "/v2/models/electra_demo/stats": "OipStatistics",
}
OF_MODEL: Final = ("", "/ready", "/config", "/stats")
KEYLESS: Final = {"/v2/health/live", "/v2/health/ready", "/v2/models/electra_demo/ready"}
UNSUPPORTED: Final = (
    "/v2/systemsharedmemory/status",
    "/v2/systemsharedmemory/region/r/register",
    "/v2/cudasharedmemory/region/r/unregister",
    "/v2/trace/setting",
    "/v2/logging",
    "/v2/models/electra_demo/trace/setting",
    "/v2/models/electra_demo/generate",
    "/v2/models/electra_demo/versions/1/generate_stream",
    "/v2/repository/models/a/b/load",
    "/v2/repository/models/electra_demo/unload",
)


@pytest.fixture
def document(rest: Rest) -> dict[str, Any]:
    return rest.app().openapi()


@pytest.mark.parametrize("path", GETS)
async def test_responses_follow_their_schemas(client: httpx.AsyncClient, document: dict[str, Any], path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    schema = document["components"]["schemas"][GETS[path]]
    Draft202012Validator({"components": document["components"], **schema}).validate(response.json())
    assert response.json().keys() <= schema["properties"].keys()
    head = await client.head(path)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("action", OF_MODEL)
async def test_version_1_is_the_model_and_others_are_unknown(client: httpx.AsyncClient, action: str) -> None:
    path = f"/v2/models/electra_demo{action}"
    versioned = await client.get(f"/v2/models/electra_demo/versions/1{action}")
    assert versioned.json() == (await client.get(path)).json()
    for version in ("2", "0", "x"):
        response = await client.get(f"/v2/models/electra_demo/versions/{version}{action}")
        assert (response.status_code, response.json()["field"]) == (404, "model_version")


@pytest.mark.parametrize("name", ["org/model", "org/versions/x/1", "a/ready/b", "ready", "模型", "infer"])
async def test_names_are_read_from_the_end_of_the_path(name: str) -> None:
    rest = Rest(service=FakeService(replace(READY_MODEL, name=name)))
    async with connect(rest.app()) as client:
        for version in ("", "/versions/1"):
            for action in OF_MODEL:
                response = await client.get(f"/v2/models/{name}{version}{action}")
                found = response.json()
                if "model_stats" in found:
                    [found] = found["model_stats"]
                assert (response.status_code, found["name"]) == (200, name)
            response = await client.post(f"/v2/models/{name}{version}/infer", json=ids([1], 1))
            assert response.json()["model_name"] == name


async def test_the_server(client: httpx.AsyncClient) -> None:
    server = (await client.get("/v2")).json()
    assert (await client.get("/v2/")).json() == server  # as the protocol's OpenAPI document has it
    assert (server["name"], server["version"]) == ("electra-serve", __version__)
    assert {"binary_tensor_data", "statistics", "model_configuration"} <= set(server["extensions"])


async def test_health_follows_the_service(client: httpx.AsyncClient, rest: Rest) -> None:
    assert (await client.get("/v2/health/ready")).json() == {"ready": True}
    rest.service.ready = False
    response = await client.get("/v2/health/ready")
    assert (response.status_code, response.json()["ready"]) == (503, False)
    assert isinstance(response.json()["error"], str)
    assert response.headers["retry-after"] == "1"
    assert (await client.get("/v2/health/live")).json() == {"live": True}


async def test_a_model_that_loads(client: httpx.AsyncClient) -> None:
    response = await client.get("/v2/models/next/ready")
    content = response.json()
    assert (response.status_code, content["name"], content["ready"]) == (503, "next", False)
    for action in ("", "/config"):
        response = await client.get(f"/v2/models/next{action}")
        assert (response.status_code, response.json()["code"]) == (503, "model_not_ready")
    [statistics] = (await client.get("/v2/models/next/stats")).json()["model_stats"]
    assert statistics["inference_count"] == 0


async def test_metadata_has_the_axis_of_the_batch_and_configuration_has_not(client: httpx.AsyncClient) -> None:
    model = (await client.get("/v2/models/electra_demo")).json()
    config = (await client.get("/v2/models/electra_demo/config")).json()
    assert config["max_batch_size"] == 4
    assert [entry["name"] for entry in config["input"]] == [entry["name"] for entry in model["inputs"]]
    assert all(entry["optional"] for entry in config["input"])
    for described, configured in zip(
        model["inputs"] + model["outputs"], config["input"] + config["output"], strict=True
    ):
        assert described["shape"][0] == -1
        assert configured["dims"] == (described["shape"][1:] or [1])
        assert configured.get("reshape") == (None if described["shape"][1:] else {"shape": []})
        assert configured["data_type"].removeprefix("TYPE_") == described["datatype"].replace("BYTES", "STRING")
    assert model["properties"]["max_sequence_length"] == "16"


async def test_ids_of_a_model_without_texts_are_not_optional() -> None:
    rest = Rest(service=FakeService(replace(READY_MODEL, text=False)))
    async with connect(rest.app()) as client:
        config = (await client.get("/v2/models/electra_demo/config")).json()
    assert {entry["name"]: entry.get("optional", False) for entry in config["input"]} == {
        "token_ids": False,
        "segment_ids": True,
        "padding_mask": True,
    }


async def test_statistics_are_those_of_inference(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        await client.get("/v2/models/electra_demo")
        await client.post(INFER, json=ids([1], 1))
    await client.post(INFER, json=ids([1], 2))
    [statistics] = (await client.get("/v2/models/electra_demo/stats")).json()["model_stats"]
    times = statistics["inference_stats"]
    assert (times["success"]["count"], times["fail"]["count"]) == (2, 1)
    assert times["success"]["ns"] > 0
    assert set(times) == {
        "success",
        "fail",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
        "cache_hit",
        "cache_miss",
    }
    everything = (await client.get("/v2/models/stats")).json()["model_stats"]
    assert [entry["name"] for entry in everything] == ["electra_demo", "next"]


@pytest.mark.parametrize(
    ("body", "names"),
    [(b"", ["electra_demo", "next"]), (b'{"ready":true}', ["electra_demo"]), (b"{}", ["electra_demo", "next"])],
)
async def test_the_index_of_the_repository(client: httpx.AsyncClient, body: bytes, names: list[str]) -> None:
    entries = (await client.post("/v2/repository/index", content=body)).json()
    assert [entry["name"] for entry in entries] == names
    assert entries[0] == {"name": "electra_demo", "version": "1", "state": "READY", "reason": ""}
    assert len(entries) < 2 or (entries[1]["state"], entries[1]["reason"]) == ("UNAVAILABLE", "loading")


@pytest.mark.parametrize(("body", "status"), [(b"[]", 400), (b'{"ready":1}', 400), (b"{", 400), (b" " * 5000, 413)])
async def test_bad_requests_for_the_index(client: httpx.AsyncClient, body: bytes, status: int) -> None:
    response = await client.post("/v2/repository/index", content=body)
    assert response.status_code == status
    assert isinstance(response.json()["error"], str)


@pytest.mark.parametrize("path", UNSUPPORTED)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_other_extensions_are_not_supported(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (501, "unsupported")
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", INFER, "POST"),
        ("PUT", "/v2/models/electra_demo/versions/1/infer", "POST"),
        ("POST", "/v2/models/electra_demo", "GET, HEAD"),
        ("POST", "/v2/models/electra_demo/ready", "GET, HEAD"),
        ("DELETE", "/v2/models/electra_demo/versions/1/config", "GET, HEAD"),
        ("POST", "/v2", "GET, HEAD"),
        ("GET", "/v2/repository/index", "POST"),
        ("PATCH", "/v2/logging", "GET, HEAD, POST"),
    ],
)
async def test_other_methods(client: httpx.AsyncClient, method: str, path: str, allow: str) -> None:
    response = await client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == allow
    assert isinstance(response.json()["error"], str)


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/v2/nowhere", "application/json"),
        ("/v2/models/", "application/json"),
        ("/v2/health", "application/json"),
        ("/v2/embed", "application/problem+json"),
        ("/v2x", "application/problem+json"),
    ],
)
async def test_forms_of_errors_by_path(client: httpx.AsyncClient, path: str, media_type: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (404, media_type)


async def test_the_path_of_the_protocols_document(client: httpx.AsyncClient) -> None:
    """Its text has no slash at the end."""
    assert (await client.get("/v2/")).json() == (await client.get("/v2")).json()


async def test_cohere_keeps_its_errors(client: httpx.AsyncClient) -> None:
    content = (await client.post("/v2/rerank", json={})).json()
    assert {"message", "detail", "error"} <= content.keys()


async def test_without_the_protocol_its_paths_are_unknown(rest: Rest) -> None:
    async with connect(rest.app(apis=ApiSettings(oip=False))) as client:
        for path in (*GETS, *UNSUPPORTED):
            response = await client.get(path)
            assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
        assert (await client.post("/v2/rerank", json={})).status_code == 400
    assert not [path for path in rest.app(apis=ApiSettings(oip=False)).openapi()["paths"] if "/v2/m" in path]


async def test_all_paths_but_probes_need_a_key(rest: Rest, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("shop-0123456789abcdef")
    authenticator = Authenticator(KeyRing(tmp_path / "keys", structlog.wrap_logger(None, [LogCapture()])))
    async with connect(rest.app(authenticator=authenticator)) as client:
        for path in (*GETS, *UNSUPPORTED):
            status = (await client.get(path)).status_code
            assert (status == 401) == (path not in KEYLESS)
            keyed = await client.get(path, headers={"x-api-key": "shop-0123456789abcdef"})
            assert keyed.status_code in {200, 501}
        for path in (INFER, "/v2/repository/index"):
            response = await client.post(path, content=b"no JSON")
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
            assert response.json()["code"] == "unauthenticated"


async def test_the_probe_of_a_model_shows_no_names_and_is_no_request() -> None:
    class Aliased(FakeService):
        def model(self, name: str) -> ModelInfo:
            return super().model("secret" if name == "public" else name)

    rest = Rest(service=Aliased(replace(READY_MODEL, name="secret")))
    async with connect(rest.app()) as client:
        for path in ("public/ready", "public/versions/1/ready", "nope/ready", "nope/versions/2/ready"):
            response = await client.get(f"/v2/models/{path}")
            assert response.status_code == (200 if path.startswith("public") else 404)
            assert "secret" not in response.text
    assert rest.log.calls == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/health/live", 200),
        ("/v2/health/ready", 200),
        ("/v2/models/electra_demo/ready", 200),
        ("/v2/models/electra_demo/versions/1/ready", 200),
        ("/v2/models/electra_demo", 503),
        ("/v2", 503),
    ],
)
async def test_health_responds_when_connections_are_full(rest: Rest, path: str, status: int) -> None:
    wire, scope = Wire(body_message(b"")), http_scope(path)
    surplus: Scope = {**scope, "state": {SURPLUS: True}}
    await wire.run(rest.app(), surplus)
    assert wire.status == status
    assert status == 200 or isinstance(json.loads(wire.body)["error"], str)


@pytest.mark.parametrize("example", examples.REQUESTS.values(), ids=examples.REQUESTS)
async def test_example_requests_get_documented_responses(
    client: httpx.AsyncClient, document: dict[str, Any], example: dict[str, Any]
) -> None:
    response = await client.post(INFER, json=example["value"])
    assert response.status_code == 200
    schema = {"$ref": "#/components/schemas/OipInferAnswer"}
    Draft202012Validator({"components": document["components"], **schema}).validate(response.json())


async def test_states_of_models_in_the_index() -> None:
    models = [ModelInfo(state.value, "p", state) for state in ModelState]
    rest = Rest(service=FakeService(*models))
    async with connect(rest.app()) as client:
        entries = (await client.post("/v2/repository/index")).json()
    assert [(entry["state"], entry["reason"]) for entry in entries] == [
        ("READY", "") if state is ModelState.READY else ("UNAVAILABLE", state.value) for state in ModelState
    ]
