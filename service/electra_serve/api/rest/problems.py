"""`ServiceError` → HTTP: one table, and `application/problem+json` responses (RFC 9457).

Routes of other servers' APIs have bodies and statuses of their own. A response describes one error and repeats nothing
of the request. gRPC has a table of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

import orjson
from starlette.responses import Response

from electra_serve import errors
from electra_serve.api.rest.body import CONTENT_ENCODING, CONTENT_TYPE, JSON_MEDIA_TYPE, SlowBody
from electra_serve.api.rest.protocol import ConnectionsFull

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
CLIENT_CLOSED_REQUEST: Final = 499  # Not a registered status. It is for the log, since the client has disconnected.


@dataclass(frozen=True, slots=True)
class ProblemType:
    """Kind of problem.

    With `close` the connection cannot serve another request. `challenge` is the value of `WWW-Authenticate`.
    """

    status: int
    title: str
    close: bool = False
    challenge: str | None = None


PROBLEM_TYPES: Final[dict[type[errors.ServiceError], ProblemType]] = {
    errors.MalformedRequest: ProblemType(400, "Malformed request"),
    SlowBody: ProblemType(408, "Malformed request", close=True),
    errors.UnsupportedMediaType: ProblemType(415, "Unsupported media type"),
    errors.InvalidInput: ProblemType(422, "Invalid input"),
    errors.PayloadTooLarge: ProblemType(413, "Payload too large"),
    errors.Unauthenticated: ProblemType(401, "Not authenticated", challenge="Bearer"),
    errors.ModelNotFound: ProblemType(404, "Model not found"),
    errors.ModelNotReady: ProblemType(503, "Model not ready"),
    errors.ShuttingDown: ProblemType(503, "Shutting down"),
    errors.Overloaded: ProblemType(429, "Overloaded"),
    ConnectionsFull: ProblemType(503, "Too many connections", close=True),
    errors.DeadlineExceeded: ProblemType(504, "Deadline exceeded"),
    errors.Cancelled: ProblemType(CLIENT_CLOSED_REQUEST, "Cancelled by the client"),
    errors.EngineFailure: ProblemType(500, "Engine failure"),
    errors.Unsupported: ProblemType(501, "Unsupported"),
    errors.Conflict: ProblemType(409, "Conflict"),
    errors.ModelLoadFailed: ProblemType(422, "Model cannot be loaded"),
    errors.InternalError: ProblemType(500, "Internal error"),
}

# Headers of a 415 by the field at fault (RFC 9110, 12.5.1 and 12.5.3; Linked Data Platform, 7.1)
_SUPPORTED: Final = {
    CONTENT_TYPE: {"accept": JSON_MEDIA_TYPE, "accept-post": JSON_MEDIA_TYPE},
    CONTENT_ENCODING: {"accept-encoding": "identity"},
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed request, for the body of its response."""

    status: int
    title: str
    detail: str
    code: str
    request_id: str
    field: str | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class RenderedFailure:
    """Status and body of a failed request, in the form of an API."""

    status: int
    body: object  # written as JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = JSON_MEDIA_TYPE


ErrorFormat = Callable[[Failure], RenderedFailure]


def as_problem(failure: Failure) -> RenderedFailure:
    """Renders the service's own form."""
    return RenderedFailure(failure.status, problem_members(**asdict(failure)), media_type=PROBLEM_MEDIA_TYPE)


def failure_response(failure: Failure, form: ErrorFormat, headers: Mapping[str, str] | None = None) -> Response:
    """Returns the response of a route whose errors have this form."""
    rendered = form(failure)
    return Response(
        orjson.dumps(rendered.body), rendered.status, {**(headers or {}), **rendered.headers}, rendered.media_type
    )


def problem_response(error: errors.ServiceError, request_id: str, form: ErrorFormat = as_problem) -> Response:
    """Returns the response to a request that failed with `error`."""
    kind = PROBLEM_TYPES[type(error)]
    retry_after_s = error.retry_delay_s
    headers: dict[str, str] = {}
    if isinstance(error, errors.UnsupportedMediaType):
        headers |= _SUPPORTED.get(error.field or "", {})  # no header lists transfer codings to clients
    if retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
    if kind.close:
        headers["connection"] = "close"
    if kind.challenge is not None:
        headers["www-authenticate"] = kind.challenge
    detail = f"the log has the rest under request id {request_id}" if error.internal else error.message
    failure = Failure(kind.status, kind.title, detail, error.code, request_id, error.field, retry_after_s)
    return failure_response(failure, form, headers)


def problem_members(
    status: int,
    title: str,
    detail: str,
    code: str,
    request_id: str,
    *,
    field: str | None = None,
    retry_after_s: float | None = None,
) -> dict[str, str | int | float]:
    """Returns the members of a problem that are not None: see `electra_serve.api.rest.schemas.Problem`."""
    members: dict[str, str | int | float | None] = {
        "type": f"urn:problem-type:electra-serve:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "field": field,
        "retry_after_s": retry_after_s,
    }
    return {name: value for name, value in members.items() if value is not None}
