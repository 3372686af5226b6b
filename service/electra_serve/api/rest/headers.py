"""Reads a request's headers: as a plain mapping, and as the context of the request."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.requests import Request
from starlette.types import Scope

from electra_serve.api.request_options import PRIORITY_KEY, joined, lesser, parse_priority, proxy_timeout_s
from electra_serve.api.rest.protocol import ARRIVED, CERTIFIED
from electra_serve.api.security.authentication import Authenticator
from electra_serve.errors import MalformedRequest
from electra_serve.observability.requests import RequestRecord
from electra_serve.serving.request_context import Deadline, RequestContext

TIMEOUT_HEADER: Final = "x-request-timeout-ms"
LENGTH_HEADER: Final = "inference-header-content-length"  # of JSON that the bytes of tensors follow

_STATE_KEY: Final = "electra_headers"
_TIMEOUT_PATTERN: Final = re.compile(r"[1-9][0-9]{0,8}")


def headers_of(scope: Scope) -> Mapping[str, str]:
    """Returns the headers by lower-case name, read once for each request; lines of one name form one value."""
    state = scope.setdefault("state", {})
    headers: Mapping[str, str] | None = state.get(_STATE_KEY)
    if headers is None:
        headers = state[_STATE_KEY] = _headers_of(scope["headers"])
    return headers


def _headers_of(lines: Sequence[tuple[bytes, bytes]]) -> Mapping[str, str]:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in lines}
    if len(headers) == len(lines):
        return headers
    return joined((name.decode("latin-1"), value.decode("latin-1")) for name, value in lines)


def timeout_s(headers: Mapping[str, str]) -> float | None:
    """Returns the lower of the client's and a proxy's timeout in seconds; None without either.

    Raises `MalformedRequest` if `x-request-timeout-ms` is not a whole number of milliseconds from 1 to 999,999,999.
    """
    value = headers.get(TIMEOUT_HEADER)
    if value is None:
        return proxy_timeout_s(headers)
    if not _TIMEOUT_PATTERN.fullmatch(value):
        raise MalformedRequest(
            f"{TIMEOUT_HEADER} must be a whole number of milliseconds from 1 to 999999999; got another value",
            field=TIMEOUT_HEADER,
        )
    return lesser(int(value) / 1e3, proxy_timeout_s(headers))


def deadline_of(scope: Scope) -> Deadline | None:
    """Returns the deadline, counted from the first byte of the request; raises what `timeout_s` raises."""
    allowed_s = timeout_s(headers_of(scope))
    if allowed_s is None:
        return None
    state = scope["state"]
    return Deadline((state[ARRIVED] if ARRIVED in state else time.monotonic()) + allowed_s)


def context_of(request: Request, record: RequestRecord, authenticator: Authenticator) -> RequestContext:
    """Authenticates a request and reads its options; raises `Unauthenticated`, or `MalformedRequest` for a header."""
    return RequestContext(
        request_id=record.request_id,
        client=caller_of(request, authenticator),
        priority=parse_priority(headers_of(request.scope).get(PRIORITY_KEY)),
        deadline=deadline_of(request.scope),
        span=record.span,
    )


def caller_of(request: Request, authenticator: Authenticator) -> str:
    """Returns the client's name, by headers and connection; raises `Unauthenticated`."""
    peer = request.scope["client"]
    certified = CERTIFIED in request.scope["state"]
    return authenticator.name_of(headers_of(request.scope), peer[0] if peer else "", certified=certified)
