"""When to try again. Pure: time and chance come in as arguments.

Encoding changes nothing on the server, so a request may be sent twice without harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from electra_serve.errors import ElectraServeError, ServiceError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try again, and how long to wait.

    The wait is what the server asks for, or else `first_wait_s`, doubled with each attempt; and up to a quarter
    more, so that clients refused together do not come back together.

    Attributes:
        max_attempts: Attempts in all; 1 never tries again.
        first_wait_s: Seconds before the second attempt, where the server does not say.
        max_wait_s: A longer wait is not waited for: the error is raised at once.
    """

    max_attempts: int = 3
    first_wait_s: float = 0.1
    max_wait_s: float = 5.0

    def wait_s(self, error: ElectraServeError, *, attempt: int, remaining_s: float, chance: float) -> float | None:
        """Seconds to wait before the next attempt, or None to give up.

        Args:
            error: Why the last attempt failed.
            attempt: Its number, from 1.
            remaining_s: Seconds that the caller will still wait.
            chance: Drawn evenly from 0 to 1.

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
