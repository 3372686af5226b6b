"""Whether and when to try again. Pure: time is the caller's."""

from __future__ import annotations

from typing import Final

from electra_serve.presets.hubs.failure import TRANSIENT, Failure

FIRST_DELAY_S: Final = 1.0
LONGEST_DELAY_S: Final = 30.0


def delay_s(failure: Failure, attempt: int, attempts: int) -> float | None:
    """Seconds to wait before the next attempt, or None to give up.

    Each wait is twice the one before, and at least what the hub asked for; a hub that asks for more than
    `LONGEST_DELAY_S` is not waited for.

    Args:
        failure: Of the last attempt.
        attempt: Which that was, from 1.
        attempts: Most attempts in all.

    Example:
        >>> from electra_serve.presets.hubs.failure import FailureKind
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
