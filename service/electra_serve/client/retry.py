"""Policy of retries. Pure: time and chance are arguments.

Every request is safe to repeat, as encoding changes nothing on the server.
"""

from __future__ import annotations

from dataclasses import dataclass

from electra_serve.errors import ElectraServeError, ServiceError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Number of attempts, and waits between them.

    The wait is the server's `retry_after_s`, or `first_wait_s` doubled with each attempt. Up to a quarter is added, so
    that clients rejected together do not retry together.
    """

    max_attempts: int = 3  # total attempts; 1 for no retry
    first_wait_s: float = 0.1  # seconds before the second attempt, unless the server reports them
    max_wait_s: float = 5.0  # longest wait; instead of a longer one, the error is raised at once

    def wait_s(self, error: ElectraServeError, *, attempt: int, remaining_s: float, chance: float) -> float | None:
        """Returns the seconds until the next attempt; None to raise `error`.

        Args:
            error: Error of the last attempt.
            attempt: Number of the last attempt, from 1.
            remaining_s: Seconds left of the call.
            chance: Random number from 0 to 1, uniform.

        Example:
            >>> from electra_serve.errors import Overloaded
            >>> RetryPolicy().wait_s(Overloaded("full", retry_after_s=2.0), attempt=1, remaining_s=60.0, chance=1.0)
            2.5
        """
        if attempt >= self.max_attempts or not error.retryable:
            return None
        asked = error.retry_after_s if isinstance(error, ServiceError) else None
        wait_s = self.first_wait_s * 2 ** (attempt - 1) if asked is None else asked
        wait_s *= 1 + chance / 4
        return None if wait_s > min(self.max_wait_s, remaining_s) else wait_s
