"""How long an engine that could start waits for company: turns of the event loop, not a time.

Callers who are answered together ask again together, but their requests take some turns of the event loop to come in:
gRPC accepts one call at a time. Started with the first of them, an engine would run that one alone while the others
wait. So it starts once some turns have brought nothing new. A turn with nothing to do takes a few microseconds, so that
a lone request is held back by some ten of them; one with something to do was needed before the answer anyway.

Nothing here waits or reads a clock.
"""

from __future__ import annotations

from typing import Final

QUIET_TURNS: Final = 8
"""So many turns without a newcomer, and nobody else is on the way."""
MAX_COALESCE_S: Final = 0.001
"""An event loop that is never quiet holds nothing back for longer."""


class CoalescingWindow:
    """One time of waiting for company.

    Args:
        now: When it begins, in seconds.
        waiting: How many sequences wait.

    Example:
        >>> window = CoalescingWindow(now=0.0, waiting=1)
        >>> [window.goes_on(now=0.0, waiting=waiting) for waiting in (1, 2, 2)]
        [True, True, True]
        >>> window.goes_on(now=0.001, waiting=2)
        False
    """

    def __init__(self, now: float, waiting: int) -> None:
        self._until = now + MAX_COALESCE_S
        self._waiting = waiting
        self._quiet_turns = 0

    def goes_on(self, now: float, waiting: int) -> bool:
        """Whether to wait another turn; asked once a turn."""
        self._quiet_turns = self._quiet_turns + 1 if waiting == self._waiting else 0
        self._waiting = waiting
        return self._quiet_turns < QUIET_TURNS and now < self._until
