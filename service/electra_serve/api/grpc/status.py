"""`ServiceError` → gRPC: a status code, a text and trailing metadata. HTTP has a table of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration

from electra_serve import errors
from electra_serve.proto.electra.v1 import encoder_pb2 as pb

STATUS: Final[Mapping[type[errors.ServiceError], grpc.StatusCode]] = MappingProxyType(
    {
        errors.ServiceError: grpc.StatusCode.INTERNAL,
        errors.MalformedRequest: grpc.StatusCode.INVALID_ARGUMENT,
        errors.UnsupportedMediaType: grpc.StatusCode.UNIMPLEMENTED,
        errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
        errors.PayloadTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
        errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
        errors.ModelNotReady: grpc.StatusCode.UNAVAILABLE,
        errors.ShuttingDown: grpc.StatusCode.UNAVAILABLE,
        errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
        errors.Cancelled: grpc.StatusCode.CANCELLED,
        errors.EngineFailure: grpc.StatusCode.INTERNAL,
        errors.Conflict: grpc.StatusCode.ABORTED,
        errors.ModelLoadFailed: grpc.StatusCode.FAILED_PRECONDITION,
        errors.InternalError: grpc.StatusCode.INTERNAL,
    }
)

PASSING: Final = (errors.ModelNotReady, errors.ShuttingDown, errors.Overloaded)
"""Temporary errors; their responses always have a delay for the retry."""
PRIVATE: Final = (errors.EngineFailure, errors.InternalError)
"""Errors whose text is only logged."""
DEFAULT_RETRY_AFTER_S: Final = 1.0
MAX_RETRY_AFTER_S: Final = 3600.0

REQUEST_ID_KEY: Final = "x-request-id"
CODE_KEY: Final = "electra-error-code"
FIELD_KEY: Final = "electra-error-field"
PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"


def code_of(error: errors.ServiceError) -> grpc.StatusCode:
    """Returns the status of the error's class, or of its nearest base class in the table."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def retry_after_s(error: errors.ServiceError) -> float | None:
    """Returns the error's own delay within bounds, or a default for temporary errors."""
    if error.retry_after_s is None:
        return DEFAULT_RETRY_AFTER_S if isinstance(error, PASSING) else None
    return min(max(error.retry_after_s, 0.0), MAX_RETRY_AFTER_S)


def details(error: errors.ServiceError, request_id: str) -> str:
    """The text callers see: the error's own, but of faults that are not theirs no more than where to look."""
    if isinstance(error, PRIVATE):
        return f"the server failed on this request; its log has the rest under request id {request_id}"
    return error.message


def trailing_metadata(error: errors.ServiceError, request_id: str) -> tuple[tuple[str, str], ...]:
    """The slug, the field at fault, when to try again, and the request's id; what is None is left out."""
    metadata = [(CODE_KEY, error.code), (REQUEST_ID_KEY, request_id)]
    if error.field is not None:
        metadata.append((FIELD_KEY, error.field))
    wait_s = retry_after_s(error)
    if wait_s is not None:
        metadata.append((PUSHBACK_KEY, str(math.ceil(wait_s * 1e3))))
    return tuple(metadata)


def from_error(error: errors.ServiceError, request_id: str) -> pb.Error:
    """The message of an error that does not end its stream."""
    return pb.Error(
        code=error.code,
        message=details(error, request_id),
        field=error.field or "",
        retry_after=_duration(retry_after_s(error)),
    )


def _duration(seconds: float | None) -> Duration | None:
    return None if seconds is None else Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
