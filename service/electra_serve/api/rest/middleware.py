"""Outermost middleware: the request's id, and headers that every response has.

Responses must not be cached, since they depend on private texts or on the current state. Files of pages have a rule of
their own. This is pure ASGI: `BaseHTTPMiddleware` would run each request in a separate task and hide that its client
has disconnected.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.trace import Span
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from electra_serve.api.rest.headers import headers_of
from electra_serve.observability.requests import choose_request_id
from electra_serve.observability.tracing import TRACE_RESPONSE_KEY, traceresponse

REQUEST_ID_HEADER: Final = "x-request-id"

_STATE_KEY: Final = "electra_request_id"
_SPAN_KEY: Final = "electra_span"
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_CACHE_CONTROL: Final = b"cache-control"
_NO_STORE: Final = (_CACHE_CONTROL, b"no-store")


def request_id(scope: Scope) -> str:
    """Returns the id that `ResponseHeadersMiddleware` chose."""
    chosen: str = scope["state"][_STATE_KEY]
    return chosen


def name_span(scope: Scope, span: Span | None) -> None:
    """Adds the request's span, if there is one, to the headers of the response."""
    if span is not None:
        scope["state"][_SPAN_KEY] = (TRACE_RESPONSE_KEY.encode(), traceresponse(span).encode())


class ResponseHeadersMiddleware:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; other kinds of connection pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        chosen = choose_request_id(headers_of(scope).get(REQUEST_ID_HEADER))
        scope["state"][_STATE_KEY] = chosen
        common = (_NOSNIFF, (REQUEST_ID_HEADER.encode(), chosen.encode()))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                span = scope["state"].get(_SPAN_KEY)
                own = message.get("headers", ())
                caching = () if any(name == _CACHE_CONTROL for name, _ in own) else (_NO_STORE,)
                message["headers"] = [*own, *common, *caching, *([] if span is None else [span])]
            await send(message)

        await self._app(scope, receive, send_with_headers)
