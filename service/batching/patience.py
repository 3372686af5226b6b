"""How long an engine may take, and when it is given up. Pure: times come in as numbers.

    in time ─ stalled ─ hung
       └────────┘

A batch may take ten times what the cost model expects, and some seconds: a throttled CPU, a neighbour's burst, a first
batch after a long pause. Beyond that its engine is stalled, so that nothing new is sent here; if the batch ends after
all, everything is as before. One that stays stalled is hung: native code that never returns cannot be stopped, only
left.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

FACTOR: Final = 10.0
SLACK_S: Final = 3.0


class Pace(Enum):
    """How an engine does."""

    IN_TIME = "in time"
    STALLED = "stalled"
    HUNG = "hung"


@dataclass(frozen=True, slots=True)
class Patience:
    """The bounds.

    Attributes:
        hung_after_s: Seconds for which a stalled engine is waited for.
    """

    hung_after_s: float

    def pace(self, running_s: float, expected_s: float) -> Pace:
        """How an engine does whose batch has run for `running_s` and should take `expected_s`.

        Example:
            >>> [Patience(30.0).pace(seconds, expected_s=0.2) for seconds in (5.0, 5.1, 35.1)]
            [<Pace.IN_TIME: 'in time'>, <Pace.STALLED: 'stalled'>, <Pace.HUNG: 'hung'>]
        """
        late_s = running_s - (FACTOR * expected_s + SLACK_S)
        if late_s <= 0:
            return Pace.IN_TIME
        return Pace.STALLED if late_s <= self.hung_after_s else Pace.HUNG
