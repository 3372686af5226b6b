"""Pages that may call REST can read every response, errors included."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import orjson
import pytest
import structlog
from fastapi import FastAPI

from electra_serve.api.rest.admin.app import create_admin_app
from electra_serve.api.rest.admin.endpoints import AdminEndpoints
from electra_serve.api.rest.app import create_metrics_app
from electra_serve.api.rest.protocol import SURPLUS
from electra_serve.api.security.api_keys import KeyRing
from electra_serve.api.security.authentication import ALLOW_ALL, Authenticator
from electra_serve.errors import Cancelled, InternalError, Overloaded
from electra_serve.settings.schema import RestSettings
from tests.unit.api.rest.admin.test_endpoints import FakeAdministration
from tests.unit.api.rest.asgi import DISCONNECT, Wire, body_message, http_scope, settle
from tests.unit.api.rest.conftest import Rest, connect
from tests.unit.api.rest.models import demo_service

ORIGIN = "https://app.example"
SETTINGS = RestSettings(max_body_bytes=4096, cors_origins=(ORIGIN, "http://localhost:3000"))
BODY = {"text": "hi"}
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,traceparent,x-api-key,x-priority,x-request-id,"
    "x-request-timeout-ms",
}


def assert_readable(response: httpx.Response, origin: str = ORIGIN) -> None:
    """Fails unless a page of `origin` may read the response, and the common headers are there."""
    assert response.headers["access-control-allow-origin"] == origin
    exposed = set(response.headers["access-control-expose-headers"].split(", "))
    assert exposed == {"inference-header-content-length", "x-request-id", "retry-after", "traceresponse"}
    assert "access-control-allow-credentials" not in response.headers
    assert_common(response)


def assert_common(response: httpx.Response) -> None:
    assert response.headers.get_list("cache-control") == ["no-store"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert len(response.headers.get_list("x-request-id")) == 1


def assert_closed(response: httpx.Response) -> None:
    """Fails if any page may read the response."""
    assert not [name for name in response.headers if name.startswith("access-control-allow-origin")]


async def test_a_preflight_needs_no_key_and_allows_what_clients_send(rest: Rest, tmp_path: Path) -> None:
    async with connect(rest.app(SETTINGS, keyed(tmp_path))) as client:
        response = await client.options("/v1/encode", headers=PREFLIGHT)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert set(response.headers["access-control-allow-methods"].split(", ")) == {"GET", "HEAD", "POST"}
    allowed = response.headers["access-control-allow-headers"].lower().split(", ")
    assert set(PREFLIGHT["access-control-request-headers"].split(",")) <= set(allowed)
    assert "origin" in response.headers["vary"].lower()
    assert_common(response)


@pytest.mark.parametrize(
    "changed",
    [
        {"origin": "https://app.example.evil"},
        {"origin": "http://app.example"},
        {"origin": "null"},
        {"access-control-request-method": "DELETE"},
        {"access-control-request-headers": "x-other"},
    ],
)
async def test_a_preflight_for_anything_else_is_rejected(rest: Rest, changed: dict[str, str]) -> None:
    async with connect(rest.app(SETTINGS)) as client:
        assert (await client.options("/v1/encode", headers=PREFLIGHT | changed)).status_code == 400


@pytest.mark.parametrize("origin", SETTINGS.cors_origins)
async def test_a_page_of_the_origin_reads_the_response(rest: Rest, origin: str) -> None:
    async with connect(rest.app(SETTINGS)) as client:
        response = await client.post("/v1/encode", json=BODY, headers={"origin": origin})
        assert response.status_code == 200
        assert_readable(response, origin)
        assert_readable(await client.get("/v1/models", headers={"origin": origin}), origin)


async def test_other_pages_and_clients_without_origin_are_unaffected(rest: Rest) -> None:
    async with connect(rest.app(SETTINGS)) as client:
        for headers in ({"origin": "https://other.example"}, {}):
            response = await client.post("/v1/encode", json=BODY, headers=headers)
            assert response.status_code == 200
            assert_closed(response)
            assert_common(response)


async def test_any_origin_is_a_star(rest: Rest) -> None:
    async with connect(rest.app(RestSettings(cors_origins=("*",)))) as client:
        assert_readable(await client.get("/v1/models", headers={"origin": "https://any.example"}), "*")


def keyed(tmp_path: Path) -> Authenticator:
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef")
    return Authenticator(KeyRing(keys, structlog.get_logger()))


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/encode", b"{", 400),
        ("/v1/encode", b'{"outputs": ["x"], "text": "a"}', 422),
        ("/v1/encode", b"a" * 4097, 413),
        ("/v1/models", b"", 405),
        ("/v3", b"", 404),
    ],
)
async def test_a_page_reads_problems(rest: Rest, path: str, body: bytes, status: int) -> None:
    headers = {"origin": ORIGIN, "content-type": "application/json"}
    async with connect(rest.app(SETTINGS)) as client:
        response = await client.post(path, content=body, headers=headers)
    assert response.status_code == status
    assert_readable(response)


@pytest.mark.parametrize(("error", "status"), [(Overloaded("full"), 429), (InternalError("secret"), 500)])
async def test_a_page_reads_errors_of_the_service(rest: Rest, error: Exception, status: int) -> None:
    rest.service.fail_with(error)
    async with connect(rest.app(SETTINGS)) as client:
        response = await client.post("/v1/encode", json=BODY, headers={"origin": ORIGIN})
    assert response.status_code == status
    assert ("retry-after" in response.headers) is (status == 429)
    assert_readable(response)


async def test_a_page_reads_that_a_key_is_needed(rest: Rest, tmp_path: Path) -> None:
    async with connect(rest.app(SETTINGS, keyed(tmp_path))) as client:
        response = await client.post("/v1/encode", json=BODY, headers={"origin": ORIGIN})
    assert response.status_code == 401
    assert_readable(response)


async def test_a_page_reads_that_connections_are_full_and_of_surprises(rest: Rest) -> None:
    app = rest.app(SETTINGS)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("secret")

    full = Wire()
    scope = http_scope("/v1/models", headers={"origin": ORIGIN})
    scope["state"] = {SURPLUS: True}
    await full.run(app, scope)
    surprise = Wire()
    with pytest.raises(RuntimeError):
        await surprise.run(app, http_scope("/broken", headers={"origin": ORIGIN}))
    for wire, status in ((full, 503), (surprise, 500)):
        assert wire.status == status
        assert_readable(httpx.Response(wire.status, headers=wire.headers))
        assert b"secret" not in wire.body


def admin_app() -> FastAPI:
    endpoints = AdminEndpoints(FakeAdministration(), SETTINGS, ALLOW_ALL, structlog.get_logger())
    return create_admin_app(endpoints, keyed=False)


async def test_no_page_reads_anything_by_default(rest: Rest) -> None:
    async with connect(rest.app()) as client:
        assert (await client.options("/v1/encode", headers=PREFLIGHT)).status_code == 405
        assert_closed(await client.post("/v1/encode", json=BODY, headers={"origin": ORIGIN}))


async def test_no_page_reads_admin_and_metrics(rest: Rest) -> None:
    for app, path in (
        (admin_app(), "/admin/v1/models"),
        (create_metrics_app(demo_service(), rest.metrics), "/metrics"),
    ):
        async with connect(app) as client:
            assert (await client.options(path, headers=PREFLIGHT)).status_code == 405
            assert_closed(await client.get(path, headers={"origin": ORIGIN}))


async def test_a_page_that_leaves_cancels_its_request(rest: Rest) -> None:
    rest.service.gate.clear()
    wire = Wire(body_message(orjson.dumps(BODY)))
    headers = {"origin": ORIGIN, "content-type": "application/json"}
    request = asyncio.ensure_future(
        wire.run(rest.app(SETTINGS), http_scope("/v1/encode", method="POST", headers=headers))
    )
    await settle()
    assert rest.service.cancelled == 0
    wire.push(DISCONNECT)
    await request
    assert rest.service.cancelled == 1
    assert rest.counted(model="electra_demo", code=Cancelled.code) == 1
