"""The error taxonomy: what can go wrong, without a word about any transport.

    ElectraServeError
    ├── StartupError                the process cannot begin to serve
    │   ├── SettingsError           a setting is unknown, malformed or contradicts another
    │   ├── PresetError             a preset is unknown, unreadable or not what it claims to be
    │   └── EngineUnavailable       the engine or device asked for is not on this machine
    └── ServiceError                one request cannot be answered
        ├── MalformedRequest        not in the shape of a request: broken JSON, unknown field, wrong type
        ├── UnsupportedMediaType    a body in another format, or compressed
        ├── InvalidInput            well-formed, but a shape, length, range or mask is wrong
        ├── PayloadTooLarge         more bytes or more sequences than one request may carry
        ├── Unauthenticated         no valid credentials
        ├── ModelNotFound           no model of that name is served
        ├── ModelNotReady           the model loads, unloads or failed
        ├── ShuttingDown            the process is draining
        ├── Overloaded              the queue is full
        ├── DeadlineExceeded        the caller's deadline passed first
        ├── Cancelled               the caller went away
        ├── EngineFailure           the engine failed on this very input
        ├── Conflict                a change to a model that the state of things does not allow
        ├── ModelLoadFailed         a change to a model that came to nothing: it cannot be loaded
        └── InternalError           anything else: a fault of ours

Each `ServiceError` class has a `code`, a slug that never changes: clients branch on it, and metrics
carry it as a label. `electra_serve.api.rest.problems` and `electra_serve.api.grpc.status` each map every class to
their protocol's own codes; neither table is made from the other.
"""

from __future__ import annotations

from typing import ClassVar


class ElectraServeError(Exception):
    """Root of every error this project raises on purpose."""


class StartupError(ElectraServeError):
    """The process cannot begin to serve. Ends it with one line and a non-zero exit code."""


class SettingsError(StartupError):
    """A setting is unknown, malformed or contradicts another one."""


class PresetError(StartupError):
    """A preset is unknown, unreadable, or not what it claims to be."""


class EngineUnavailable(StartupError):
    """The engine or the device asked for cannot be had on this machine."""


class ServiceError(ElectraServeError):
    """One request cannot be answered.

    Args:
        message: What is valid, then what came. Shown to the caller, so it never repeats the input itself.
        field: The request field at fault, such as `token_ids[3]`.
        retry_after_s: Seconds after which a retry is likely to succeed.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, field: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


class MalformedRequest(ServiceError):
    """Not in the shape of a request: broken JSON, an unknown field, a wrong type."""

    code = "malformed_request"


class UnsupportedMediaType(ServiceError):
    """The content type or the content encoding of the body is not supported."""

    code = "unsupported_media_type"


class InvalidInput(ServiceError):
    """Well-formed, but a shape, a length, a range or a mask is wrong."""

    code = "invalid_input"


class PayloadTooLarge(ServiceError):
    """More bytes, or more sequences, than one request may carry."""

    code = "payload_too_large"


class Unauthenticated(ServiceError):
    """No valid credentials came with the request."""

    code = "unauthenticated"


class ModelNotFound(ServiceError):
    """No model of that name is served here."""

    code = "model_not_found"


class ModelNotReady(ServiceError):
    """The model loads, unloads or failed."""

    code = "model_not_ready"


class ShuttingDown(ServiceError):
    """The process is draining and admits nothing new."""

    code = "shutting_down"


class Overloaded(ServiceError):
    """The queue is full; `retry_after_s` says when it should have room."""

    code = "overloaded"


class DeadlineExceeded(ServiceError):
    """The caller's deadline passed before the answer was there."""

    code = "deadline_exceeded"


class Cancelled(ServiceError):
    """The caller went away before the answer was there."""

    code = "cancelled"


class EngineFailure(ServiceError):
    """The engine failed, or answered with non-finite numbers, on this very input."""

    code = "engine_failure"


class Conflict(ServiceError):
    """A model's name is taken, or another change to it is under way. Only who administers models sees it."""

    code = "conflict"


class ModelLoadFailed(ServiceError):
    """The model asked for cannot be loaded; what was served before still is. Only who administers models sees it."""

    code = "model_load_failed"


class InternalError(ServiceError):
    """A fault of ours. Callers see a generic text and the request id; the log has the rest."""

    code = "internal"
