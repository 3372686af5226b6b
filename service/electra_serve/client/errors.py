"""What a client raises.

The server's errors come back as the classes of `electra_serve.errors`, recognised by their slug: what `encode` raises
is the same over both transports, and the same that the service itself raised. Where the server could not be
reached, or something else answered in its place, it is a `TransportError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from electra_serve.errors import (
    Cancelled,
    Conflict,
    DeadlineExceeded,
    ElectraServeError,
    EngineFailure,
    InternalError,
    InvalidInput,
    MalformedRequest,
    ModelLoadFailed,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    PayloadTooLarge,
    ServiceError,
    ShuttingDown,
    Unauthenticated,
    UnsupportedMediaType,
)

BY_CODE: Final[Mapping[str, type[ServiceError]]] = MappingProxyType(
    {
        cls.code: cls
        for cls in (
            MalformedRequest,
            UnsupportedMediaType,
            InvalidInput,
            PayloadTooLarge,
            Unauthenticated,
            ModelNotFound,
            ModelNotReady,
            ShuttingDown,
            Overloaded,
            DeadlineExceeded,
            Cancelled,
            EngineFailure,
            Conflict,
            ModelLoadFailed,
            InternalError,
        )
    }
)


class TransportError(ElectraServeError):
    """The server could not be reached, or what answered does not speak this service's protocol."""


def service_error(
    code: str, message: str, *, field: str | None = None, retry_after_s: float | None = None
) -> ServiceError:
    """The error that a slug stands for; an `InternalError` for one that this client does not know."""
    return BY_CODE.get(code, InternalError)(message, field=field, retry_after_s=retry_after_s)
