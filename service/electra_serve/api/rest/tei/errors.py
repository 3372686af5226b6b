"""Errors as clients of Text Embeddings Inference expect them: `{"error", "error_type"}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, Literal

from electra_serve.api.rest.problems import Failure, RenderedFailure
from electra_serve.errors import InvalidInput

ErrorType = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]

EMPTY: Final = "inputs must have at least one entry; got none"
_STATUSES: Final[Mapping[str, tuple[int | None, ErrorType]]] = MappingProxyType(
    {
        "malformed_request": (HTTPStatus.UNPROCESSABLE_ENTITY, "Validation"),
        "model_not_found": (HTTPStatus.FAILED_DEPENDENCY, "Backend"),
        "engine_failure": (HTTPStatus.FAILED_DEPENDENCY, "Backend"),
        "deadline_exceeded": (None, "Backend"),
        "internal": (None, "Backend"),
        "overloaded": (None, "Overloaded"),
        "model_not_ready": (None, "Unhealthy"),
        "shutting_down": (None, "Unhealthy"),
    }
)
"""Status, None for the service's own, and type by code; others are `Validation` with the service's status."""
_INDEXED: Final = re.compile(r"(?:texts?|token_ids)(?=\[)")


def empty_inputs() -> InvalidInput:
    """Returns the error for a request without inputs, which has a type of its own."""
    return InvalidInput(EMPTY, field="inputs")


def as_tei_error(failure: Failure, *, member: str = "inputs") -> RenderedFailure:
    """Renders a failure; its message begins with the entry of `member` at fault, if there are several.

    Example:
        >>> as_tei_error(Failure(422, "Invalid input", "too long", "invalid_input", "r", "text[3]")).body
        {'error': 'inputs[3]: too long', 'error_type': 'Validation'}
    """
    status, kind = _kind(failure)
    field, found = _INDEXED.subn(member, failure.field or "", count=1)
    message = f"{field}: {failure.detail}" if found else failure.detail
    return RenderedFailure(status or failure.status, {"error": message, "error_type": kind})


def _kind(failure: Failure) -> tuple[int | None, ErrorType]:
    if failure.detail == EMPTY:
        return HTTPStatus.BAD_REQUEST, "Empty"
    if failure.code == InvalidInput.code and failure.field == "model":  # of another kind than the route needs
        return HTTPStatus.FAILED_DEPENDENCY, "Backend"
    if failure.status == HTTPStatus.REQUEST_TIMEOUT:
        return None, "Validation"
    return _STATUSES.get(failure.code, (None, "Validation"))
