"""`x-envoy-expected-rq-timeout-ms`: how long the proxy in front will wait, on either transport.

Envoy, and so Istio, tells its upstream when it will give a request up. A value that is no number of milliseconds is
passed over, not refused: the caller did not write it, cannot mend it, and loses nothing but an earlier refusal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

PROXY_TIMEOUT_KEY: Final = "x-envoy-expected-rq-timeout-ms"

_MILLISECONDS: Final = re.compile(r"[1-9][0-9]{0,8}")


def proxy_timeout_s(metadata: Mapping[str, str | bytes]) -> float | None:
    """Seconds after which the proxy gives the request up; None where there is none, or it does not say.

    Example:
        >>> proxy_timeout_s({"x-envoy-expected-rq-timeout-ms": "250"})
        0.25
        >>> proxy_timeout_s({"x-envoy-expected-rq-timeout-ms": "soon"}) is None
        True
    """
    value = metadata.get(PROXY_TIMEOUT_KEY)
    return int(value) / 1e3 if isinstance(value, str) and _MILLISECONDS.fullmatch(value) else None


def lesser(one: float | None, other: float | None) -> float | None:
    """The shorter of two time limits, either of which there may not be.

    Example:
        >>> lesser(2.0, None), lesser(2.0, 1.0), lesser(None, None)
        (2.0, 1.0, None)
    """
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
