"""How long a batch takes: a table of one timing per batch shape, taken at warm-up.

The timings choose between plans and predict waits. How the machine has changed since is one number,
`DriftCorrection`. Nothing here knows of clocks: timings come in, seconds go out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from electra_serve.tensors import BatchShape

WEIGHT: Final = 0.1
"""Of the latest batch in the correction: what lasts ten batches is believed, what lasts one is not."""
MOST_STEP: Final = 1.15
"""Most that a single batch changes the correction by, as a factor; a fourfold error moves it so far."""


class CostTable:
    """Seconds of each batch shape that an engine was timed in.

    Args:
        timings: At least one shape of one row, each of more than 0 seconds.

    Raises:
        ValueError: There is none, or a time is not above 0.

    Example:
        >>> CostTable({BatchShape(1, 16): 0.001, BatchShape(1, 32): 0.0015}).seconds(BatchShape(1, 32))
        0.0015
    """

    def __init__(self, timings: Mapping[BatchShape, float]) -> None:
        if not any(shape.rows == 1 for shape in timings) or any(not seconds > 0 for seconds in timings.values()):
            raise ValueError(
                f"timings must have a shape of one row and only times above 0 s; got {len(timings)} timings"
            )
        self._timings = dict(timings)

    @property
    def shapes(self) -> tuple[BatchShape, ...]:
        """The shapes, smallest first."""
        return tuple(sorted(self._timings, key=lambda shape: (shape.positions, shape.rows)))

    def seconds(self, shape: BatchShape) -> float:
        """Seconds of a batch of `shape`.

        Raises:
            KeyError: The shape was not timed.
        """
        return self._timings[shape]


class DriftCorrection:
    """How much longer batches take of late than the cost model says.

    The model is fitted once, and the machine does not stay as it was: it may have been busy during the start, or be
    shared now. All batches slow down about alike, so that one factor corrects what depends on seconds as such (when to
    choose the next batch, when to come back); how to cut batches depends on ratios, which stay.

    The factor follows the geometric mean of measured / predicted, with less weight the longer ago. A single batch moves
    it by `MOST_STEP` at the most.

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
        """Takes one more batch into account.

        Args:
            predicted_s: What the model said, uncorrected; 0 is no prediction, and passed over.
            measured_s: What it took.
        """
        if predicted_s > 0:
            step = (measured_s / (predicted_s * self.factor)) ** WEIGHT
            self.factor *= min(max(step, 1 / MOST_STEP), MOST_STEP)
