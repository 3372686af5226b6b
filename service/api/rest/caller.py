"""Who sent an HTTP request."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Scope

from service.api.callers import Callers
from service.api.rest.protocol import CERTIFIED


def caller_of(scope: Scope, headers: Mapping[str, str], callers: Callers) -> str:
    """The caller's name; the request's body has not been read.

    Raises:
        Unauthenticated: It may not ask.
    """
    peer = scope["client"]
    return callers.name_of(headers, peer[0] if peer else "", certified=CERTIFIED in scope["state"])
