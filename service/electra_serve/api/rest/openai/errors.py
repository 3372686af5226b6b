"""Errors as OpenAI's clients expect them: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from electra_serve.api.rest.problems import Failure, RenderedFailure

_TYPES: Final[Mapping[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
_NO_RETRY: Final = frozenset({HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.GATEWAY_TIMEOUT})


def as_openai_error(failure: Failure) -> RenderedFailure:
    """Renders a failure; invalid input is a 400, and `x-should-retry` says whether a retry may help.

    Example:
        >>> as_openai_error(Failure(422, "Invalid input", "too long", "invalid_input", "r")).status
        400
    """
    status = 400 if failure.status == HTTPStatus.UNPROCESSABLE_ENTITY else failure.status
    headers = {}
    if failure.retry_after_s is not None:
        headers = {"x-should-retry": "true", "retry-after-ms": str(round(failure.retry_after_s * 1000))}
    elif status in _NO_RETRY:
        headers = {"x-should-retry": "false"}
    return RenderedFailure(status, {"error": error_members(failure)}, headers)


def error_members(failure: Failure) -> dict[str, str | None]:
    """Returns the members of `error`."""
    kind = "server_error" if failure.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return {
        "message": failure.detail,
        "type": _TYPES.get(failure.status, kind),
        "param": failure.field,
        "code": failure.code,
    }
