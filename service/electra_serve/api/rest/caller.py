"""Who sent an HTTP request."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request

from electra_serve.api.rest.protocol import CERTIFIED
from electra_serve.api.security.authentication import Authenticator


def caller_of(request: Request, authenticator: Authenticator, headers: Mapping[str, str] | None = None) -> str:
    """The caller's name; the request's body has not been read.

    Args:
        request: Whose caller.
        authenticator: Who may ask.
        headers: Those of the request, where they have been read already.

    Raises:
        Unauthenticated: It may not ask.
    """
    peer = request.scope["client"]
    certified = CERTIFIED in request.scope["state"]
    return authenticator.name_of(headers or request.headers, peer[0] if peer else "", certified=certified)
