from __future__ import annotations

import httpx
import orjson
import pytest
from fastapi.routing import APIRoute
from prometheus_client.parser import text_string_to_metric_families
from starlette.exceptions import HTTPException

from electra_serve.observability.metrics import Metrics
from tests.unit.api.rest.asgi import Wire, http_scope
from tests.unit.api.rest.conftest import Rest, connect

PATHS = ["/v1/models", "/v1/models/electra_demo", "/livez", "/readyz", "/metrics", "/openapi.json"]


def assert_common(response: httpx.Response) -> None:
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", PATHS)
async def test_each_path_responds_with_the_common_headers(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path, headers={"x-request-id": "order-7"})
    assert response.status_code == 200
    assert response.headers["x-request-id"] == "order-7"
    assert_common(response)


async def test_models_are_listed_whatever_their_state(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()["models"]
    assert [(model["name"], model["state"]) for model in listed] == [("electra_demo", "ready"), ("next", "loading")]
    assert listed[1]["parameters"] is None


async def test_one_model_is_described_completely(client: httpx.AsyncClient) -> None:
    model = (await client.get("/v1/models/electra_demo")).json()
    assert (model["weights"], model["pooler"]) == ("random", "random")
    assert model["config"]["vocab_size"] == 100
    assert model["limits"] == {"max_sequences": 4, "max_sequence_length": 16}
    assert model["batch_shapes"][0] == {"rows": 1, "length": 16, "seconds": 1e-3}
    assert model["batch_tokens"] == 4096


@pytest.mark.parametrize("name", ["unknown", "", "org/unknown", "%2e%2e", "caf%C3%A9"])
async def test_an_unknown_model_is_a_problem(client: httpx.AsyncClient, rest: Rest, name: str) -> None:
    response = await client.get(f"/v1/models/{name}")
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")
    assert rest.counted(model="", code="model_not_found") == 1


@pytest.mark.parametrize("path", [*PATHS, "/", "/docs", "/v2/models/electra_demo/ready", "/v1/models/electra_demo%0A"])
async def test_a_path_that_ends_with_a_line_break_is_no_route(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(f"{path}%0A")
    assert response.status_code == 400
    assert "a path must not end with a line break" in response.text


async def test_only_requests_to_v1_are_counted(client: httpx.AsyncClient, rest: Rest) -> None:
    for path in PATHS:
        await client.get(path)
    assert rest.counted(model="", code="ok") == 1
    assert rest.counted(model="electra_demo", code="ok") == 1
    assert len(rest.log.calls) == 2


async def test_readiness_follows_the_service(client: httpx.AsyncClient, rest: Rest) -> None:
    assert (await client.get("/readyz")).json() == {"status": "ok"}
    rest.service.ready = False
    response = await client.get("/readyz")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["code"] == "model_not_ready"
    assert (await client.get("/livez")).json() == {"status": "ok"}


async def test_metrics_are_what_prometheus_reads(client: httpx.AsyncClient) -> None:
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = {family.name for family in text_string_to_metric_families(response.text)}
    assert {"electra_requests", "electra_build_info"} <= families


@pytest.mark.parametrize("path", ["/v1", "/v3/encode", "/livez/", "/docs/", "/redoc", "/v1/encode/x"])
async def test_other_paths_are_problems(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert_common(response)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/encode", "POST"),
        ("HEAD", "/v1/encode", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/models/electra_demo", "GET, HEAD"),
        ("PUT", "/openapi.json", "GET, HEAD"),
    ],
)
async def test_other_methods_are_problems(client: httpx.AsyncClient, method: str, path: str, allow: str) -> None:
    response = await client.request(method, path)
    assert response.status_code == 405
    assert method == "HEAD" or response.json()["code"] == "method_not_allowed"
    assert response.headers["allow"] == allow
    assert_common(response)


async def test_other_http_errors_are_problems_without_their_text(rest: Rest) -> None:
    app = rest.app()

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "secret")

    async with connect(app) as client:
        response = await client.get("/teapot")
    assert (response.status_code, response.json()["code"]) == (418, "http_error")
    assert "secret" not in response.text


async def test_fastapi_s_own_validation_returns_one_problem_without_the_input(rest: Rest) -> None:
    app = rest.app()
    app.router.route_class = APIRoute

    @app.get("/square")
    async def square(number: int) -> None:
        """A route with a parameter that FastAPI checks, as the admin API has."""

    async with connect(app) as client:
        response = await client.get("/square?number=xyzzy")
    assert (response.status_code, response.json()["code"]) == (400, "malformed_request")
    assert "xyzzy" not in response.text


async def test_a_surprise_outside_v1_is_a_problem_too(rest: Rest) -> None:
    class Broken(Metrics):
        def exposition(self) -> tuple[bytes, str]:
            raise RuntimeError("secret")

    rest.metrics = Broken("0")
    wire = Wire()
    with pytest.raises(RuntimeError):
        await wire.run(rest.app(), http_scope("/metrics"))
    assert (wire.status, orjson.loads(wire.body)["code"]) == (500, "internal")
    assert b"secret" not in wire.body


@pytest.mark.parametrize(
    "path",
    ["/livez", "/readyz", "/metrics", "/openapi.json", "/v1/models", "/v1/models/electra_demo", "/v1/models/no", "/no"],
)
@pytest.mark.parametrize("ready", [True, False])
async def test_head_is_get_without_a_body(client: httpx.AsyncClient, rest: Rest, path: str, ready: bool) -> None:
    rest.service.ready = ready
    headers = {"x-request-id": "order-7"}
    get, head = await client.get(path, headers=headers), await client.head(path, headers=headers)
    assert head.status_code == get.status_code
    assert head.content == b""
    if path == "/metrics":  # it counts the processor's seconds, too
        assert head.headers.keys() == get.headers.keys()
    else:
        assert head.headers == get.headers
