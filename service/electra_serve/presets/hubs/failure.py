"""What can go wrong while a preset is fetched, as data: it crosses from one process to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class FailureKind(StrEnum):
    """Why a fetch ended without files."""

    NOT_FOUND = "not_found"
    """No such repository, revision or version."""
    FORBIDDEN = "forbidden"
    """401 or 403: private, gated, or hidden."""
    BUSY = "busy"
    """429: too many requests."""
    UNAVAILABLE = "unavailable"
    """The hub cannot be reached, answers 5xx, hangs, or breaks off."""
    CORRUPT = "corrupt"
    """What came is not what the hub says it is, or not a file of its kind."""
    REJECTED = "rejected"
    """What is there is not to be fetched: no weights in a format that is read, too large, a name that climbs out."""
    CRASHED = "crashed"
    """The client ended without saying why."""


TRANSIENT: Final = frozenset({FailureKind.BUSY, FailureKind.UNAVAILABLE, FailureKind.CORRUPT})
"""Kinds that another attempt may mend."""

OUTAGES: Final = frozenset({FailureKind.BUSY, FailureKind.UNAVAILABLE})
"""Kinds that say nothing against a copy fetched earlier."""

KIND_OF_STATUS: Final[Mapping[int, FailureKind]] = {
    401: FailureKind.FORBIDDEN,
    403: FailureKind.FORBIDDEN,
    404: FailureKind.NOT_FOUND,
    408: FailureKind.UNAVAILABLE,
    410: FailureKind.NOT_FOUND,
    416: FailureKind.CORRUPT,  # a partial file is longer than the whole one
    429: FailureKind.BUSY,
}
"""HTTP status → kind; any other from 500 on is `UNAVAILABLE`, below that `REJECTED`."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt.

    Attributes:
        kind: Why.
        detail: One line on what came.
        retry_after_s: Seconds the hub asked to wait, if it did.
    """

    kind: FailureKind
    detail: str
    retry_after_s: float | None = None


class FetchError(Exception):
    """An attempt failed.

    Args:
        failure: Why.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.detail}")
        self.failure = failure


def failure_of_status(status: int, headers: Mapping[str, str]) -> Failure:
    """What an HTTP error means.

    Example:
        >>> failure_of_status(429, {"Retry-After": "7"})
        Failure(kind=<FailureKind.BUSY: 'busy'>, detail='HTTP 429', retry_after_s=7.0)
        >>> failure_of_status(502, {}).kind.value
        'unavailable'
    """
    otherwise = FailureKind.UNAVAILABLE if status >= 500 else FailureKind.REJECTED
    return Failure(KIND_OF_STATUS.get(status, otherwise), f"HTTP {status}", _seconds(headers.get("Retry-After")))


def one_line(text: object, most: int = 300) -> str:
    """`text` on one line, cut."""
    return " ".join(str(text).split())[:most]


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isdecimal() else None
