"""What an engine takes: shapes of its grid, and ids that its tables have.

Requests are checked long before (`electra_serve.serving.validation`), row by row and with words for their senders.
This is the engine's own last line: a batch that slipped through, or that somebody else packed, must raise rather than
be answered with another token's vector. It reads three small arrays once, some microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from electra_serve.engine.base import ShapeGrid
from electra_serve.presets.config import BackboneConfig
from electra_serve.tensors import Batch, Int32Array


@dataclass(frozen=True, slots=True)
class InputBounds:
    """The batches that an engine runs.

    Attributes:
        grid: Their shapes.
        vocab_size: Token ids are below it.
        num_segments: Segment ids are below it.
    """

    grid: ShapeGrid
    vocab_size: int
    num_segments: int

    @classmethod
    def of(cls, config: BackboneConfig, grid: ShapeGrid) -> InputBounds:
        """The bounds of a model of `config` on `grid`."""
        return cls(grid, config.vocab_size, config.num_segments)

    def check(self, batch: Batch) -> None:
        """Does nothing for a batch within the bounds.

        Raises:
            ValueError: The batch is outside them.

        Example:
            >>> zero, one = np.zeros((1, 2), np.int32), np.ones((1, 2), np.int32)
            >>> InputBounds(ShapeGrid(max_rows=8, max_length=512), vocab_size=100, num_segments=2).check(
            ...     Batch(one * 100, zero, one)
            ... )
            Traceback (most recent call last):
            ...
            ValueError: token_ids must be 0 to 99; received 100 to 100
        """
        if not self.grid.holds(batch.shape):
            raise ValueError(f"the batch must have a shape of the engine's grid; received {batch.shape}")
        _check_below("token_ids", batch.token_ids, self.vocab_size)
        _check_below("segment_ids", batch.segment_ids, self.num_segments)
        _check_below("padding_mask", batch.padding_mask, 2)


def _check_below(name: str, values: Int32Array, bound: int) -> None:
    # Seen as unsigned, a negative number is larger than any bound: one pass finds both faults.
    if values.view(np.uint32).max() >= bound:
        raise ValueError(f"{name} must be 0 to {bound - 1}; received {values.min()} to {values.max()}")
