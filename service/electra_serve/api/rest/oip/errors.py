"""Errors as clients of the protocol expect them: `{"error"}`, and further members of the service."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from electra_serve.api.rest.body import BINARY_MEDIA_TYPE, CONTENT_ENCODING, CONTENT_TYPE, JSON_MEDIA_TYPE, BodyKind
from electra_serve.api.rest.problems import Failure, RenderedFailure
from electra_serve.errors import UnsupportedMediaType

INFER_BODY: Final = BodyKind((JSON_MEDIA_TYPE, BINARY_MEDIA_TYPE), ("gzip", "deflate"))
_MEDIA_TYPES: Final = ", ".join(INFER_BODY.media_types)
_SUPPORTED: Final = {
    CONTENT_TYPE: {"accept": _MEDIA_TYPES, "accept-post": _MEDIA_TYPES},
    CONTENT_ENCODING: {"accept-encoding": ", ".join((*INFER_BODY.codings, "identity"))},
}
"""Headers of a 415 by the field at fault."""


def as_oip_error(failure: Failure) -> RenderedFailure:
    """Renders a failure; clients show `error` and ignore the other members.

    Example:
        >>> as_oip_error(Failure(422, "Invalid input", "too long", "invalid_input", "r")).status
        400
    """
    status = HTTPStatus.BAD_REQUEST.value if failure.status == HTTPStatus.UNPROCESSABLE_ENTITY else failure.status
    members = {
        "error": failure.detail,
        "code": failure.code,
        "request_id": failure.request_id,
        "field": failure.field,
        "retry_after_s": failure.retry_after_s,
    }
    supported = _SUPPORTED.get(failure.field or "", {}) if failure.code == UnsupportedMediaType.code else {}
    return RenderedFailure(status, {name: value for name, value in members.items() if value is not None}, supported)
