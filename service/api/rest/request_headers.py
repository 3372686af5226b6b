"""The headers with which a caller, and a proxy in front, say how long they will wait."""

from __future__ import annotations

import re
from typing import Final

from starlette.datastructures import Headers

from service.api.proxy_timeout import lesser, proxy_timeout_s
from service.errors import MalformedRequest

TIMEOUT_HEADER: Final = "x-request-timeout-ms"

_TIMEOUT_PATTERN: Final = re.compile(r"[1-9][0-9]{0,8}")


def timeout_s(headers: Headers) -> float | None:
    """Seconds that the caller and a proxy in front will wait, the lesser of the two; None where neither says.

    Raises:
        MalformedRequest: `x-request-timeout-ms` is not a whole number of milliseconds from 1 to 999,999,999.

    Example:
        >>> timeout_s(Headers({"x-request-timeout-ms": "250"}))
        0.25
    """
    value = headers.get(TIMEOUT_HEADER)
    if value is None:
        return proxy_timeout_s(headers)
    if not _TIMEOUT_PATTERN.fullmatch(value):
        raise MalformedRequest(
            f"{TIMEOUT_HEADER} must be a whole number of milliseconds from 1 to 999999999; received something else",
            field=TIMEOUT_HEADER,
        )
    return lesser(int(value) / 1e3, proxy_timeout_s(headers))
