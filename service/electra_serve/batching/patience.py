"""How long a batch may take, and when its engine is given up. Pure: times come in as numbers.

A batch may take ten times what the cost model expects, though not more than a second and a half longer, and some
seconds: a throttled CPU, a neighbour's burst, a first batch after a long pause. Beyond that its engine is late, so that
nothing new is sent here; if the batch ends after all, everything is as before. One that stays late is given up: native
code that never returns cannot be stopped, only left.

How long it has been late is counted in looks and not read off a clock. When a process that was stopped for a minute
goes on, all its batches look late, and have only not been heard of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FACTOR: Final = 10.0
MOST_S: Final = 1.5
SLACK_S: Final = 2.5
"""With the time between two looks, this and the one above are less than the five seconds within which an engine that
hangs is noticed."""


def is_late(running_s: float, expected_s: float) -> bool:
    """Whether a batch that should take `expected_s` and has run for `running_s` is late.

    Example:
        >>> is_late(2.7, expected_s=0.02), is_late(2.71, expected_s=0.02)
        (False, True)
        >>> is_late(5.0, expected_s=1.0), is_late(5.1, expected_s=1.0)
        (False, True)
    """
    return running_s > min(FACTOR * expected_s, expected_s + MOST_S) + SLACK_S


@dataclass(slots=True)
class Patience:
    """Waits for an engine that is late.

    Attributes:
        seconds: How long.
        late_s: For how long one has been late by now.
    """

    seconds: float
    late_s: float = 0.0

    def look(self, *, late: bool, since_s: float) -> bool:
        """Takes note of one look.

        Args:
            late: Whether an engine is late.
            since_s: Seconds between two looks.

        Returns:
            Whether patience is over.

        Example:
            >>> patience = Patience(1.0)
            >>> [patience.look(late=late, since_s=0.5) for late in (True, True, False, True, True, True)]
            [False, False, False, False, False, True]
        """
        self.late_s = self.late_s + since_s if late else 0.0
        return self.late_s > self.seconds
