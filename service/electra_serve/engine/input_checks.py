"""What an engine takes: batches of its shapes, and ids that its tables have.

Requests are checked long before (`electra_serve.serving.validation`), with errors for their senders. This is the
engine's own last check: a wrong batch must raise rather than be answered with another token's vector. It reads six
small arrays once, some microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from electra_serve.presets.config import BackboneConfig
from electra_serve.tensors import Batch, BatchShape, Int32Array


@dataclass(frozen=True, slots=True)
class InputBounds:
    """The batches that an engine runs.

    Attributes:
        shapes: Their shapes.
        vocab_size: Token ids are below it.
        num_segments: Segment ids are below it.
        max_sequence_length: Position ids are below it.
    """

    shapes: frozenset[BatchShape]
    vocab_size: int
    num_segments: int
    max_sequence_length: int

    @classmethod
    def of(cls, config: BackboneConfig, shapes: tuple[BatchShape, ...]) -> InputBounds:
        """The bounds of a model of `config` that runs batches of `shapes`."""
        return cls(frozenset(shapes), config.vocab_size, config.num_segments, config.max_sequence_length)

    def check(self, batch: Batch) -> None:
        """Does nothing for a batch within the bounds.

        Raises:
            ValueError: The batch is outside them.
        """
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
    # Seen as unsigned, a negative number is larger than any bound: one pass finds both faults.
    if values.view(np.uint32).max() >= bound:
        raise ValueError(f"{name} must be 0 to {bound - 1}; got {values.min()} to {values.max()}")
