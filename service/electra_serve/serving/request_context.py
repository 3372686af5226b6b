"""Data that a transport reads from a request's headers or metadata, apart from the message."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from opentelemetry.trace import Span


class Priority(IntEnum):
    """Order of requests in the queue; lower values first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class Deadline:
    """Time at which a client stops waiting, in seconds of `time.monotonic`."""

    at_s: float

    @classmethod
    def after(cls, seconds: float | None) -> Deadline | None:
        """Returns the deadline in `seconds` from now; None if there is no timeout."""
        return None if seconds is None else cls(time.monotonic() + seconds)

    def remaining_s(self) -> float:
        """Returns the seconds that are left; 0 if it has passed."""
        return max(self.at_s - time.monotonic(), 0.0)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Context of one request, which its transport builds once."""

    request_id: str = ""
    client: str = ""  # of an API key, or an address; for fairness
    priority: Priority = Priority.NORMAL
    deadline: Deadline | None = None  # the earlier of the client's and a proxy's
    span: Span | None = None  # None without tracing
    admitted: bool = False  # true for a part of a request that was accepted: a drain completes it

    @property
    def timeout_s(self) -> float | None:
        """Seconds that the client still waits; None if it sets no timeout."""
        return None if self.deadline is None else self.deadline.remaining_s()


NO_CONTEXT: Final = RequestContext()  # defaults, for requests from inside the process
