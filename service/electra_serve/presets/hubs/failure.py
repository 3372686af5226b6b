"""Failures of a fetch as data, which crosses processes, and the time until the next attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class FailureKind(StrEnum):
    """Reason for which a fetch ended without files."""

    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    BUSY = "busy"  # HTTP 429
    UNAVAILABLE = "unavailable"  # the hub is unreachable, responds with 5xx, stalls or closes the connection
    CORRUPT = "corrupt"  # A file differs from the hub's digest, or is not an index of shards
    REJECTED = "rejected"  # no weights in a supported format, too large, or an unsafe name
    CRASHED = "crashed"


# Kinds that another attempt may fix
TRANSIENT: Final = frozenset({FailureKind.BUSY, FailureKind.UNAVAILABLE, FailureKind.CORRUPT})

# Kinds after which a copy fetched earlier may still be served
OUTAGES: Final = frozenset({FailureKind.BUSY, FailureKind.UNAVAILABLE})

# HTTP status → kind; any other from 500 on is `UNAVAILABLE`, below that `REJECTED`
KIND_OF_STATUS: Final[Mapping[int, FailureKind]] = {
    401: FailureKind.FORBIDDEN,
    403: FailureKind.FORBIDDEN,
    404: FailureKind.NOT_FOUND,
    408: FailureKind.UNAVAILABLE,
    410: FailureKind.NOT_FOUND,
    429: FailureKind.BUSY,
}

FIRST_DELAY_S: Final = 1.0
LONGEST_DELAY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt: the reason, one line of detail, and the seconds that the hub asked to wait."""

    kind: FailureKind
    detail: str
    retry_after_s: float | None = None


class FetchError(Exception):
    """An attempt failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.detail}")
        self.failure = failure


def failure_of_status(status: int, headers: Mapping[str, str]) -> Failure:
    """Translates an HTTP error.

    Example:
        >>> failure_of_status(429, {"Retry-After": "7"})
        Failure(kind=<FailureKind.BUSY: 'busy'>, detail='HTTP 429', retry_after_s=7.0)
        >>> failure_of_status(502, {}).kind.value
        'unavailable'
    """
    otherwise = FailureKind.UNAVAILABLE if status >= 500 else FailureKind.REJECTED
    return Failure(KIND_OF_STATUS.get(status, otherwise), f"HTTP {status}", _seconds(headers.get("Retry-After")))


def delay_s(failure: Failure, attempt: int, attempts: int) -> float | None:
    """Returns the seconds until the next attempt; None if there should be none.

    The delay doubles with each attempt (from 1) and is at least the hub's own; one above `LONGEST_DELAY_S` ends it.

    Example:
        >>> outage = Failure(FailureKind.UNAVAILABLE, "HTTP 503")
        >>> [delay_s(outage, attempt, attempts=3) for attempt in (1, 2, 3)]
        [1.0, 2.0, None]
        >>> delay_s(Failure(FailureKind.FORBIDDEN, "HTTP 403"), 1, attempts=3) is None
        True
    """
    asked = failure.retry_after_s or 0.0
    if failure.kind not in TRANSIENT or attempt >= attempts or asked > LONGEST_DELAY_S:
        return None
    return max(asked, min(FIRST_DELAY_S * 2.0 ** (attempt - 1), LONGEST_DELAY_S))


def one_line(text: object, most: int = 300) -> str:
    """Returns the first `most` characters of `text` on one line."""
    return " ".join(str(text).split())[:most]


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isdecimal() else None
