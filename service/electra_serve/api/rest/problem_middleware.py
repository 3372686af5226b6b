"""Responds with a problem to what no route and no handler responds to.

A request on a connection over the limit goes no further. An exception that no handler took becomes a generic problem,
and travels on to the server, which logs it. It is inside the middleware that adds headers, so that problems have them.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from electra_serve.api.rest.middleware import request_id
from electra_serve.api.rest.problems import problem_response
from electra_serve.api.rest.protocol import SURPLUS, ConnectionsFull
from electra_serve.errors import InternalError

_PROBES: Final = frozenset({"/livez", "/readyz", "/metrics"})


class ProblemMiddleware:
    """ASGI middleware.

    Args:
        app: The application inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; other kinds of connection pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if SURPLUS in scope["state"] and scope["path"] not in _PROBES:
            error = ConnectionsFull("all connections are in use; come back a little later")
            await problem_response(error, request_id(scope))(scope, receive, send)
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
                await problem_response(InternalError("internal error"), request_id(scope))(scope, receive, send)
            raise
