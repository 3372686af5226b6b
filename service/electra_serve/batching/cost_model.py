"""Batch cost model: one timing per batch shape from warm-up, and one factor for drift since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from electra_serve.tensors import BatchShape

WEIGHT: Final = 0.1  # of the latest batch: a single slow batch hardly counts
MAX_STEP: Final = 1.15  # largest change by one batch, as a factor; a fourfold error reaches it


class CostTable:
    """Seconds of each batch shape; raises ValueError without a shape of one row, or for a time that is not above 0."""

    def __init__(self, timings: Mapping[BatchShape, float]) -> None:
        if not any(shape.rows == 1 for shape in timings) or any(not seconds > 0 for seconds in timings.values()):
            raise ValueError(f"timings must have a shape of one row and times above 0 s; got {len(timings)} timings")
        self._timings = dict(timings)

    @property
    def shapes(self) -> tuple[BatchShape, ...]:
        """The shapes, smallest first."""
        return tuple(sorted(self._timings, key=lambda shape: (shape.positions, shape.rows)))

    def seconds(self, shape: BatchShape) -> float:
        """Returns the seconds of one batch; raises KeyError for a shape that was not timed."""
        return self._timings[shape]


class DriftCorrection:
    """Ratio of recent to predicted batch times: a geometric mean with exponential decay.

    Other load slows all batches about alike, so one factor corrects estimated waits, and plans need no correction.

    Example:
        >>> correction = DriftCorrection()
        >>> for _ in range(50):
        ...     correction.observe(predicted_s=0.1, measured_s=0.2)
        >>> round(correction.factor, 2)
        1.99
    """

    def __init__(self) -> None:
        self.factor = 1.0

    def observe(self, predicted_s: float, measured_s: float) -> None:
        """Includes one more batch; a prediction of 0 s is ignored."""
        if predicted_s > 0:
            step = (measured_s / (predicted_s * self.factor)) ** WEIGHT
            self.factor *= min(max(step, 1 / MAX_STEP), MAX_STEP)
