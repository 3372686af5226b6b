"""Errors of the server and the client, independent of the transport.

    ElectraServeError
    ├── StartupError                the process cannot start
    │   ├── SettingsError           a setting is unknown, malformed or contradicts another
    │   ├── PresetError             a preset is unknown, unreadable or invalid
    │   ├── EngineUnavailable       the requested engine or device is not available
    │   └── BulkError               files of `electra-serve encode` cannot be read, written or continued
    │       └── BulkConflict        its input, output and options do not fit together
    ├── TransportError              the client cannot reach the server, or another server responds
    └── ServiceError                the server rejects a request, or fails on it
        ├── MalformedRequest        broken JSON, unknown field, wrong type
        ├── UnsupportedMediaType    unsupported content type or encoding
        ├── InvalidInput            well-formed, but a shape, length, range or mask is wrong
        ├── PayloadTooLarge         more bytes or sequences than one request may carry
        ├── Unauthenticated         no valid credentials
        ├── ModelNotFound           no model has that name
        ├── ModelNotReady           the model is loading, unloading or failed
        ├── ShuttingDown            the process is draining
        ├── Overloaded              the queue is full
        ├── DeadlineExceeded        the deadline passed first
        ├── Cancelled               the client disconnected
        ├── EngineFailure           the engine failed on this input
        ├── Unsupported             a part of a protocol that the service does not offer
        ├── Conflict                another model or operation prevents a change of a model
        ├── ModelLoadFailed         a model cannot be loaded
        └── InternalError           any other fault of the server

`electra_serve.api.rest.problems` and `electra_serve.api.grpc.status` map each `ServiceError` to their protocol's codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final

DEFAULT_RETRY_AFTER_S: Final = 1.0
MAX_RETRY_AFTER_S: Final = 3600.0


class ElectraServeError(Exception):
    """Root of all errors raised on purpose."""

    retryable: ClassVar[bool] = False  # True if the same request may succeed later


class StartupError(ElectraServeError):
    """The process cannot start; it prints one line and exits with an error."""

    exit_code: ClassVar[int] = 1


class SettingsError(StartupError):
    """A setting is unknown, malformed or contradicts another one."""


class PresetError(StartupError):
    """A preset is unknown, unreadable or invalid."""


class EngineUnavailable(StartupError):
    """The requested engine or device is not available."""


class BulkError(StartupError):
    """Files of `electra-serve encode` cannot be read, written or continued."""


class BulkConflict(BulkError):
    """Input, output and options of `electra-serve encode` do not fit together, so the same command fails again."""

    exit_code = 3


class TransportError(ElectraServeError):
    """The client cannot reach the server, or the response is not of this service's protocol."""

    retryable = True


class ServiceError(ElectraServeError):
    """The server rejects a request, or fails on it.

    Args:
        message: Allowed values, then the value received. Clients see it, so it never repeats the input itself.
        field: Request field at fault, such as `token_ids[3]`.
        retry_after_s: Seconds after which a retry is likely to succeed.
    """

    code: ClassVar[str] = "internal"  # stable identifier, for clients and metric labels
    # True for a fault of the server: clients get a generic text, and only the log has the message
    internal: ClassVar[bool] = False

    def __init__(self, message: str, *, field: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s

    @property
    def retry_delay_s(self) -> float | None:
        """Seconds to report to the client: `retry_after_s` within bounds; its default if the error is retryable."""
        if self.retry_after_s is None:
            return DEFAULT_RETRY_AFTER_S if self.retryable else None
        return min(max(self.retry_after_s, 0.0), MAX_RETRY_AFTER_S)


class MalformedRequest(ServiceError):
    """Broken JSON, an unknown field or a wrong type."""

    code = "malformed_request"


class UnsupportedMediaType(ServiceError):
    """The content type or the content encoding of the body is not supported."""

    code = "unsupported_media_type"


class InvalidInput(ServiceError):
    """A shape, a length, a range or a mask is wrong."""

    code = "invalid_input"


class PayloadTooLarge(ServiceError):
    """More bytes or sequences than one request may carry."""

    code = "payload_too_large"


class Unauthenticated(ServiceError):
    """The request has no valid credentials."""

    code = "unauthenticated"


class ModelNotFound(ServiceError):
    """No served model has that name."""

    code = "model_not_found"


class ModelNotReady(ServiceError):
    """The model is loading, unloading or failed."""

    code = "model_not_ready"
    retryable = True


class ShuttingDown(ServiceError):
    """The process is draining and admits no requests."""

    code = "shutting_down"
    retryable = True


class Overloaded(ServiceError):
    """The queue is full; `retry_after_s` estimates when it has capacity."""

    code = "overloaded"
    retryable = True


class DeadlineExceeded(ServiceError):
    """The deadline passed before the response was ready."""

    code = "deadline_exceeded"


class Cancelled(ServiceError):
    """The client disconnected before the response was ready."""

    code = "cancelled"


class EngineFailure(ServiceError):
    """The engine failed, or computed non-finite numbers, on this input."""

    code = "engine_failure"
    internal = True


class Unsupported(ServiceError):
    """The request needs a part of a protocol that the service does not offer, such as shared memory."""

    code = "unsupported"


class Conflict(ServiceError):
    """A model's name is taken, or another operation on it is in progress. Administrators only."""

    code = "conflict"


class ModelLoadFailed(ServiceError):
    """The model cannot be loaded; a model that it should replace is still served. Administrators only."""

    code = "model_load_failed"


class InternalError(ServiceError):
    """Any other fault of the server. Clients get a generic text and the request id."""

    code = "internal"
    internal = True


_BY_CODE: Final[Mapping[str, type[ServiceError]]] = MappingProxyType(
    {cls.code: cls for cls in ServiceError.__subclasses__()}
)


def error_class(code: str) -> type[ServiceError]:
    """Returns the error class of a code; `InternalError` for one from a newer server.

    Example:
        >>> error_class("overloaded").retryable
        True
    """
    return _BY_CODE.get(code, InternalError)
