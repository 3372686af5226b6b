"""Coalesces requests that arrive within 8 quiet event-loop iterations (at most 1 ms).

Clients that get responses together send their next requests together, but gRPC accepts one call per iteration
(docs/decisions/0012).
"""

from __future__ import annotations

from typing import Final

QUIET_ITERATIONS: Final = 8  # without a new sequence
MAX_COALESCE_S: Final = 0.001  # limits the delay while the event loop is busy


class CoalescingWindow:
    """Delay of an idle engine's next batch.

    Example:
        >>> window = CoalescingWindow(now=0.0, waiting=1)
        >>> [window.is_open(now=0.0, waiting=waiting) for waiting in (1, 2, 2)]
        [True, True, True]
        >>> window.is_open(now=0.001, waiting=2)
        False
    """

    def __init__(self, now: float, waiting: int) -> None:
        self._until = now + MAX_COALESCE_S
        self._waiting = waiting
        self._quiet_iterations = 0

    def is_open(self, now: float, waiting: int) -> bool:
        """Returns True to wait for another iteration; called once per iteration."""
        self._quiet_iterations = self._quiet_iterations + 1 if waiting == self._waiting else 0
        self._waiting = waiting
        return self._quiet_iterations < QUIET_ITERATIONS and now < self._until
