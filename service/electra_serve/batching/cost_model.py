"""How long a batch takes: t(B, S) = a + b·B·S + c·B·S².

`a` is what any batch costs (dispatch, weights read from memory), `b` what a position costs (the dense
layers), `c` what a pair of positions costs (attention). Three numbers per model and device, fitted to
timings taken at warm-up. They only choose between partitions and predict waits, so a fit within some ten
per cent does. How the machine has changed since is one more number, `DriftCorrection`. Nothing here knows of clocks:
timings come in, seconds go out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from electra_serve.tensors import BatchShape

FloatArray = NDArray[np.float64]

WEIGHT: Final = 0.1
"""Of the latest batch in the correction: what lasts ten batches is believed, what lasts one is not."""
MOST_STEP: Final = 1.15
"""Most that a single batch changes the correction by, as a factor; a fourfold error moves it so far."""


@dataclass(frozen=True, slots=True)
class CostModel:
    """t(B, S) = `batch_s` + `position_s`·B·S + `pair_s`·B·S², in seconds, each factor ≥ 0.

    Attributes:
        batch_s: Seconds per batch (a).
        position_s: Seconds per padded position (b).
        pair_s: Seconds per pair of positions of one row (c).

    Example:
        >>> CostModel(batch_s=1.0, position_s=0.5, pair_s=0.25).seconds(rows=2, length=4)
        13.0
    """

    batch_s: float
    position_s: float
    pair_s: float

    def seconds(self, rows: int, length: int) -> float:
        """Seconds for a batch of `rows` sequences of `length` positions."""
        return self.batch_s + rows * self.row_seconds(length)

    def row_seconds(self, length: int) -> float:
        """Seconds that one more row of `length` adds to a batch of that length."""
        return length * (self.position_s + self.pair_s * length)


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


def fit(timings: Sequence[tuple[BatchShape, float]]) -> CostModel:
    """Fits the model to `timings` by least squares of the relative error, with no factor below zero.

    Relative, because a batch of 2 ms matters as much to the planner as one of 200 ms. With three factors the
    best non-negative fit is found by trying every subset of them.

    Args:
        timings: Batch shapes and the seconds each took: at least one, each of more than 0 seconds.

    Raises:
        ValueError: No timings, or one that is not positive.

    Example:
        >>> true = CostModel(2e-3, 1e-5, 1e-8)
        >>> shapes = [BatchShape(1, 8), BatchShape(1, 256), BatchShape(16, 32), BatchShape(8, 512)]
        >>> found = fit([(shape, true.seconds(shape.rows, shape.length)) for shape in shapes])
        >>> round(found.batch_s, 6), round(found.position_s, 8), round(found.pair_s, 11)
        (0.002, 1e-05, 1e-08)
    """
    if not timings or any(not seconds > 0 for _, seconds in timings):
        raise ValueError(f"timings must be one or more, each above 0 seconds; received {len(timings)}")
    rows = np.array([shape.rows for shape, _ in timings], np.float64)
    lengths = np.array([shape.length for shape, _ in timings], np.float64)
    seconds = np.array([seconds for _, seconds in timings], np.float64)
    terms = np.stack([np.ones_like(rows), rows * lengths, rows * lengths**2], axis=1) / seconds[:, None]  # (N, 3)
    factors = min(_candidates(terms), key=lambda found: float(((terms @ found - 1) ** 2).sum()))
    return CostModel(*(float(factor) for factor in factors))


def _candidates(terms: FloatArray) -> list[FloatArray]:
    """Least-squares solutions of terms · x = 1 over each subset of columns that leave no factor negative."""
    solutions = []
    for size in (1, 2, 3):
        for columns in combinations(range(3), size):
            solution = np.zeros(3)
            solution[list(columns)] = np.linalg.lstsq(terms[:, columns], np.ones(len(terms)), rcond=None)[0]
            if (solution >= 0).all():
                solutions.append(solution)
    return solutions
