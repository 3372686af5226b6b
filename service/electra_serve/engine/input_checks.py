"""Rejects batches that an engine cannot compute: of other shapes, or with ids out of range, which XLA would clamp.

Requests are validated before (`electra_serve.serving.validation`); this is the last check.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from electra_serve.presets.config import BackboneConfig
from electra_serve.tensors import Batch, BatchShape, Int32Array


@dataclass(frozen=True, slots=True)
class InputBounds:
    """Limits of an engine's batches; ids are below the sizes."""

    shapes: frozenset[BatchShape]
    vocab_size: int
    num_segments: int
    max_sequence_length: int

    @classmethod
    def of(cls, config: BackboneConfig, shapes: tuple[BatchShape, ...]) -> InputBounds:
        """Returns the limits of a model."""
        return cls(frozenset(shapes), config.vocab_size, config.num_segments, config.max_sequence_length)

    def check(self, batch: Batch) -> None:
        """Raises ValueError for a batch outside the limits."""
        shape = batch.shape
        if shape not in self.shapes:
            raise ValueError(f"the batch must have one of the engine's shapes; got {shape}")
        _check_below("token_ids", batch.token_ids, self.vocab_size)
        _check_below("segment_ids", batch.segment_ids, self.num_segments)
        _check_below("position_ids", batch.position_ids, self.max_sequence_length)
        _check_below("sequence_ids", batch.sequence_ids, shape.slots + 1)
        _check_below("padding_mask", batch.padding_mask, 2)
        _check_below("starts", batch.starts, shape.length)


def _check_below(name: str, values: Int32Array, bound: int) -> None:
    # As unsigned, a negative number exceeds any bound: one pass checks both.
    if values.view(np.uint32).max() >= bound:
        raise ValueError(f"{name} must be 0 to {bound - 1}; got {values.min()} to {values.max()}")
