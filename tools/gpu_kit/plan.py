"""Stages, the most valuable first, and the time that each may take.

A stage gets its own limit and what earlier stages have left over, so that all of them end in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TOTAL_S: Final = 530.0
"""For everything, installation included; a machine may end a command after ten minutes."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A module of `tools.gpu_kit.stages`.

    Attributes:
        name: The module's name.
        limit_s: Seconds on a GPU.
    """

    name: str
    limit_s: float


STAGES: Final = (
    Stage("contract", 110),
    Stage("service", 130),
    Stage("offline", 110),
    Stage("startup", 75),
    Stage("served", 75),
)


def limit_of(stage: Stage, later: Sequence[Stage], remaining_s: float) -> float:
    """Seconds that `stage` may take while `remaining_s` are left for it and `later` ones.

    Example:
        >>> one, two = Stage("one", 30), Stage("two", 20)
        >>> limit_of(one, [two], 80.0), limit_of(two, [], 15.0)
        (60.0, 15.0)
        >>> limit_of(one, [two], 35.0)
        30
    """
    return min(remaining_s, max(stage.limit_s, remaining_s - sum(other.limit_s for other in later)))
