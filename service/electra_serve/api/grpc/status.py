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
        errors.Unsupported: grpc.StatusCode.UNIMPLEMENTED,
        errors.Conflict: grpc.StatusCode.ABORTED,
        errors.ModelLoadFailed: grpc.StatusCode.FAILED_PRECONDITION,
        errors.InternalError: grpc.StatusCode.INTERNAL,
    }
)

REQUEST_ID_KEY: Final = "x-request-id"
CODE_KEY: Final = "electra-error-code"
FIELD_KEY: Final = "electra-error-field"
PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"


def code_of(error: errors.ServiceError) -> grpc.StatusCode:
    """Returns the status of the error's class, or of its nearest base class in the table."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def details(error: errors.ServiceError, request_id: str) -> str:
    """Returns the text for clients: the error's own, or a generic one for a fault of the server."""
    if error.internal:
        return f"the server failed on this request; its log has the rest under request id {request_id}"
    return error.message


def trailing_metadata(error: errors.ServiceError, request_id: str) -> tuple[tuple[str, str], ...]:
    """Returns code, field, delay of a retry and request id, without those that are None."""
    metadata = [(CODE_KEY, error.code), (REQUEST_ID_KEY, request_id)]
    if error.field is not None:
        metadata.append((FIELD_KEY, error.field))
    wait_s = error.retry_delay_s
    if wait_s is not None:
        metadata.append((PUSHBACK_KEY, str(math.ceil(wait_s * 1e3))))
    return tuple(metadata)


def from_error(error: errors.ServiceError, request_id: str) -> pb.Error:
    """The message of an error that does not end its stream."""
    return pb.Error(
        code=error.code,
        message=details(error, request_id),
        field=error.field or "",
        retry_after=_duration(error.retry_delay_s),
    )


def _duration(seconds: float | None) -> Duration | None:
    return None if seconds is None else Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
