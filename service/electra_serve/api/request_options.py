"""Request options that REST and gRPC share: in HTTP headers or metadata, and in the message.

`x-priority` orders requests in the queue; an unknown value is rejected.
`x-envoy-expected-rq-timeout-ms` is the timeout of an Envoy (or Istio) proxy in front of the service. A malformed value
is ignored: the client did not write it and cannot fix it.
`truncate` and `truncation` are one rule for sequences that are too long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from electra_serve.errors import MalformedRequest
from electra_serve.serving.request_context import Priority
from electra_serve.tensors import Truncation

Value = TypeVar("Value", str, str | bytes)

PRIORITY_KEY: Final = "x-priority"
PROXY_TIMEOUT_KEY: Final = "x-envoy-expected-rq-timeout-ms"

_BY_NAME: Final = {priority.name.lower(): priority for priority in Priority}
PRIORITY_NAMES: Final = tuple(_BY_NAME)
_MILLISECONDS: Final = re.compile(r"[1-9][0-9]{0,8}")


def joined(lines: Iterable[tuple[str, Value]]) -> dict[str, Value]:
    """Returns headers or metadata by name; lines of one name form one value (RFC 9110, 5.3).

    So every transport and route rejects two keys, priorities or timeouts alike.

    >>> joined([("x-priority", "low"), ("host", "x"), ("x-priority", "high")])
    {'x-priority': 'low, high', 'host': 'x'}
    """
    values: dict[str, list[Value]] = {}
    for name, value in lines:
        values.setdefault(name, []).append(value)
    return {name: _join(several) for name, several in values.items()}


def _join(values: list[Value]) -> Value:
    last = values[-1]
    if len(values) == 1 or isinstance(last, bytes):
        return last
    return ", ".join(value for value in values if isinstance(value, str))


def parse_priority(value: str | bytes | None) -> Priority:
    """Returns the priority of a request; raises `MalformedRequest` for an unknown one.

    >>> parse_priority("high"), parse_priority(None)
    (<Priority.HIGH: 0>, <Priority.NORMAL: 1>)
    """
    if value is None:
        return Priority.NORMAL
    priority = _BY_NAME.get(value) if isinstance(value, str) else None
    if priority is None:
        raise MalformedRequest(
            f"{PRIORITY_KEY} must be one of {', '.join(PRIORITY_NAMES)}; got another value", field=PRIORITY_KEY
        )
    return priority


def proxy_timeout_s(metadata: Mapping[str, str | bytes]) -> float | None:
    """Returns the proxy's timeout in seconds; None if it is absent or malformed.

    >>> proxy_timeout_s({"x-envoy-expected-rq-timeout-ms": "250"})
    0.25
    """
    value = metadata.get(PROXY_TIMEOUT_KEY)
    return int(value) / 1e3 if isinstance(value, str) and _MILLISECONDS.fullmatch(value) else None


def lesser(one: float | None, other: float | None) -> float | None:
    """Returns the shorter of two timeouts; None means no limit."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def combine_truncation(truncate: bool, truncation: Truncation | None) -> Truncation:
    """Combines the two fields for truncation; raises `MalformedRequest` if they contradict each other.

    >>> combine_truncation(True, None), combine_truncation(False, Truncation.LEFT)
    (<Truncation.LONGEST_FIRST: 'longest_first'>, <Truncation.LEFT: 'left'>)
    """
    if truncation is None:
        return Truncation.LONGEST_FIRST if truncate else Truncation.NONE
    if truncate and truncation is Truncation.NONE:
        raise MalformedRequest("truncation must not be none if truncate is true; received both", field="truncation")
    return truncation
