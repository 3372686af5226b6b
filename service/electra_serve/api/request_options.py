"""Options that requests have on REST and gRPC alike: `x-priority`, and `truncate` with `truncation`."""

from __future__ import annotations

from typing import Final

from electra_serve.errors import MalformedRequest
from electra_serve.serving.service import Priority
from electra_serve.tensors import Truncation

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


def combine_truncation(truncate: bool, truncation: Truncation | None) -> Truncation:
    """The rule that both fields mean together.

    Args:
        truncate: Whether to cut at all, if `truncation` does not say so.
        truncation: The rule; None if the request names none.

    Raises:
        MalformedRequest: They contradict each other.

    Example:
        >>> combine_truncation(True, None), combine_truncation(False, Truncation.LEFT)
        (<Truncation.LONGEST_FIRST: 'longest_first'>, <Truncation.LEFT: 'left'>)
    """
    if truncation is None:
        return Truncation.LONGEST_FIRST if truncate else Truncation.NONE
    if truncate and truncation is Truncation.NONE:
        raise MalformedRequest("truncation must not be none if truncate is true; received both", field="truncation")
    return truncation
