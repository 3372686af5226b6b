from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from electra_serve.api.rest.head import HeadMiddleware
from electra_serve.api.rest.middleware import ResponseHeadersMiddleware, request_id
from electra_serve.api.rest.problem_middleware import ProblemMiddleware
from tests.unit.api.rest.asgi import Wire, http_scope


async def echo_id(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": request_id(scope).encode()})


async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("the password is 1234")


async def fail_midway(scope: Scope, receive: Receive, send: Send) -> None:
    await echo_id(scope, receive, send)
    raise RuntimeError("too late")


async def test_every_response_has_the_request_id() -> None:
    wire = Wire()
    await wire.run(ResponseHeadersMiddleware(echo_id), http_scope(headers={"X-Request-Id": "order-7"}))
    common = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
    assert wire.headers == {"a": "b", "x-request-id": "order-7"} | common
    assert wire.body == b"order-7"


@pytest.mark.parametrize("headers", [{}, {"x-request-id": ""}, {"x-request-id": "a b"}, {"x-request-id": "x" * 129}])
async def test_a_missing_or_odd_request_id_is_replaced(headers: dict[str, str]) -> None:
    wire = Wire()
    await wire.run(ResponseHeadersMiddleware(echo_id), http_scope(headers=headers))
    assert len(wire.headers["x-request-id"]) == 32
    assert wire.headers["x-request-id"].encode() == wire.body


async def test_a_surprise_becomes_a_generic_problem_and_travels_on() -> None:
    wire = Wire()
    with pytest.raises(RuntimeError):
        await wire.run(
            ResponseHeadersMiddleware(ProblemMiddleware(fail)), http_scope(headers={"x-request-id": "order-7"})
        )
    assert wire.status == 500
    assert wire.headers["x-request-id"] == "order-7"
    assert wire.headers["x-content-type-options"] == "nosniff"
    problem = orjson.loads(wire.body)
    assert (problem["code"], problem["request_id"]) == ("internal", "order-7")
    assert b"1234" not in wire.body


async def test_a_response_that_has_begun_is_not_followed_by_another() -> None:
    wire = Wire()
    with pytest.raises(RuntimeError):
        await wire.run(ResponseHeadersMiddleware(ProblemMiddleware(fail_midway)), http_scope())
    assert [message["type"] for message in wire.sent] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [("1.1", 1, 200), ("1.1", 0, 400), ("1.1", 2, 400), ("1.0", 1, 200), ("1.0", 0, 200), ("1.0", 2, 400)],
)
async def test_a_request_has_one_host(version: str, hosts: int, status: int) -> None:
    wire = Wire()
    scope = {**http_scope(), "http_version": version, "headers": [(b"host", b"rest.test")] * hosts}
    await wire.run(ResponseHeadersMiddleware(ProblemMiddleware(echo_id)), scope)
    assert wire.status == status
    if status == 400:
        assert orjson.loads(wire.body)["code"] == "malformed_request"
        assert orjson.loads(wire.body)["field"] == "host"


async def test_a_repeated_request_id_is_replaced() -> None:
    wire = Wire()
    scope = http_scope()
    scope["headers"] += [(b"x-request-id", b"order-7")] * 2
    await wire.run(ResponseHeadersMiddleware(echo_id), scope)
    assert len(wire.headers["x-request-id"]) == 32


@pytest.mark.parametrize("middleware", [ResponseHeadersMiddleware, ProblemMiddleware, HeadMiddleware])
async def test_other_connections_pass_through(middleware: Callable[[ASGIApp], ASGIApp]) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    await Wire().run(middleware(app), {"type": "lifespan"})
    assert seen == [{"type": "lifespan"}]
