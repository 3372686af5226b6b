"""The outermost layer of our own: what holds for every answer, whichever route or failure it came from.

Every answer carries the request's id, and says that nobody may keep it or guess at its type: what is encoded can be
anyone's text, and what a probe says is true only now. A request on a surplus connection, or without one host, goes no
further. HEAD is answered as GET, without the body. An exception that no handler took becomes a generic problem, and
travels on to the server, which logs it. Pure ASGI: `BaseHTTPMiddleware` would run each request in a task of its own and
hide that its client has left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from electra_serve.api.rest.headers import headers_of
from electra_serve.api.rest.problems import problem_response
from electra_serve.api.rest.protocol import SURPLUS, ConnectionsFull
from electra_serve.errors import InternalError, MalformedRequest, ServiceError
from electra_serve.observability.requests import choose_request_id
from electra_serve.observability.tracing import TRACE_RESPONSE_KEY, RequestSpan

REQUEST_ID_HEADER: Final = "x-request-id"

_STATE_KEY: Final = "electra_request_id"
_SPAN_KEY: Final = "electra_span"
_COMMON: Final = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_PROBES: Final = frozenset({"/livez", "/readyz", "/metrics"})


def request_id(scope: Scope) -> str:
    """The id that `RequestContextMiddleware` gave the request."""
    chosen: str = scope["state"][_STATE_KEY]
    return chosen


def name_span(scope: Scope, span: RequestSpan | None) -> None:
    """Has the answer name the request's span, where it has one."""
    if span is not None:
        scope["state"][_SPAN_KEY] = (TRACE_RESPONSE_KEY.encode(), span.traceresponse.encode())


class RequestContextMiddleware:
    """ASGI middleware.

    Args:
        app: What it surrounds.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; other kinds of connection pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        chosen = choose_request_id(headers.get(REQUEST_ID_HEADER))
        scope["state"][_STATE_KEY] = chosen
        common = (*_COMMON, (REQUEST_ID_HEADER.encode(), chosen.encode()))
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                span = scope["state"].get(_SPAN_KEY)
                message["headers"] = [*message.get("headers", ()), *common, *([] if span is None else [span])]
            await send(message)

        error = _rejection(scope, headers)
        if error is not None:
            await problem_response(error, chosen)(scope, receive, send_with_headers)
            return
        try:
            if scope["method"] == "HEAD":
                await self._app({**scope, "method": "GET"}, receive, _without_body(send_with_headers))
            else:
                await self._app(scope, receive, send_with_headers)
        except Exception:
            if not started:
                answer = problem_response(InternalError("internal error"), chosen)
                await answer(scope, receive, send_with_headers)
            raise


def _rejection(scope: Scope, headers: Mapping[str, str]) -> ServiceError | None:
    if SURPLUS in scope["state"] and scope["path"] not in _PROBES:
        return ConnectionsFull("all connections are in use; come back a little later")
    host = headers.get("host")
    if host is None and scope["http_version"] == "1.1":
        return MalformedRequest("a request must have a `host` header; got none", field="host")
    if host is not None and "," in host:  # two lines, joined
        return MalformedRequest("a request must have one `host` header; got several", field="host")
    return None


def _without_body(send: Send) -> Send:
    """Makes a GET's response one to HEAD: the same headers, and no body (RFC 9110, 9.3.2)."""

    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head
