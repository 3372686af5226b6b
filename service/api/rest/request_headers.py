"""The header with which a caller says how long it will wait."""

from __future__ import annotations

import re
from typing import Final

from starlette.datastructures import Headers

from service.errors import MalformedRequest

TIMEOUT_HEADER: Final = "x-request-timeout-ms"

_TIMEOUT_PATTERN: Final = re.compile(r"[1-9][0-9]{0,8}")


def timeout_s(headers: Headers) -> float | None:
    """Seconds that the caller will wait, from `x-request-timeout-ms`; None where it does not say.

    Raises:
        MalformedRequest: Not a whole number of milliseconds from 1 to 999,999,999.

    Example:
        >>> timeout_s(Headers({"x-request-timeout-ms": "250"}))
        0.25
    """
    value = headers.get(TIMEOUT_HEADER)
    if value is None:
        return None
    if not _TIMEOUT_PATTERN.fullmatch(value):
        raise MalformedRequest(
            f"{TIMEOUT_HEADER} must be a whole number of milliseconds from 1 to 999999999; received something else",
            field=TIMEOUT_HEADER,
        )
    return int(value) / 1e3
