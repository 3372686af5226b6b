"""Who sent an HTTP request."""

from __future__ import annotations

from starlette.requests import Request

from service.api.callers import Callers
from service.api.rest.protocol import CERTIFIED


def caller_of(request: Request, callers: Callers) -> str:
    """The caller's name; the request's body has not been read.

    Raises:
        Unauthenticated: It may not ask.
    """
    peer = request.client.host if request.client else ""
    return callers.name_of(request.headers, peer, certified=CERTIFIED in request.scope["state"])
