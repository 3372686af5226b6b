"""`x-priority`, a header on REST and metadata on gRPC: which requests go first."""

from __future__ import annotations

from typing import Final

from electra_serve.errors import MalformedRequest
from electra_serve.serving.service import Priority

PRIORITY_KEY: Final = "x-priority"
_BY_NAME: Final = {priority.name.lower(): priority for priority in Priority}
PRIORITY_NAMES: Final = tuple(_BY_NAME)


def parse_priority(value: str | bytes | None) -> Priority:
    """The priority that a caller names; normal where it names none.

    Raises:
        MalformedRequest: None of high, normal and low.

    Example:
        >>> parse_priority("high")
        <Priority.HIGH: 0>
    """
    if value is None:
        return Priority.NORMAL
    priority = _BY_NAME.get(value) if isinstance(value, str) else None
    if priority is None:
        raise MalformedRequest(
            f"{PRIORITY_KEY} must be one of {', '.join(PRIORITY_NAMES)}; received something else", field=PRIORITY_KEY
        )
    return priority
