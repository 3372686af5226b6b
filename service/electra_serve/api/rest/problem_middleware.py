"""Responds with a problem to requests that reach no route, and to exceptions without a handler.

Requests on a connection over the limit, or without exactly one host, are rejected here. So are paths that end with a
line break: Starlette's routes match them as if they ended before. An unhandled exception becomes a generic problem and
is re-raised to the server, which logs it. The middleware that adds headers is outside this one.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from electra_serve.api.rest.error_formats import error_format
from electra_serve.api.rest.headers import headers_of
from electra_serve.api.rest.middleware import request_id
from electra_serve.api.rest.problems import problem_response
from electra_serve.api.rest.protocol import SURPLUS, ConnectionsFull
from electra_serve.errors import InternalError, MalformedRequest, ServiceError

PROBE_PATHS: Final = frozenset({"/livez", "/readyz", "/metrics", "/health", "/v2/health/live", "/v2/health/ready"})
_MODEL_PROBE: Final = re.compile(r"/v2/models/.+/ready")


class ProblemMiddleware:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; other kinds of connection pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        error = _rejection(scope)
        if error is not None:
            await problem_response(error, request_id(scope), error_format(scope))(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            if not started:
                response = problem_response(InternalError("internal error"), request_id(scope), error_format(scope))
                await response(scope, receive, send)
            raise


def is_probe(path: str) -> bool:
    """Returns True for a path that needs no key, and is served over the limit of connections.

    Example:
        >>> is_probe("/readyz"), is_probe("/v2/models/org/model/ready"), is_probe("/v2/models/org/model")
        (True, True, False)
    """
    return path in PROBE_PATHS or _MODEL_PROBE.fullmatch(path) is not None


def _rejection(scope: Scope) -> ServiceError | None:
    if SURPLUS in scope["state"] and not is_probe(scope["path"]):
        return ConnectionsFull("all connections are in use; retry later")
    host = headers_of(scope).get("host")
    if host is None and scope["http_version"] == "1.1":
        return MalformedRequest("a request must have a `host` header; got none", field="host")
    if host is not None and "," in host:  # two lines, joined
        return MalformedRequest("a request must have one `host` header; got several", field="host")
    if scope["path"].endswith("\n"):
        return MalformedRequest("a path must not end with a line break")
    return None
