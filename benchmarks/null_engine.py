"""An engine that computes nothing, so that what is left is the front end's own cost."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from electra_serve.engine.base import EngineSignature, ShapeGrid
from electra_serve.tensors import Batch, BatchShape, Float32Array, ModelOutput, Output, Outputs


class NullEngine:
    """Answers at once, or after a fixed time, with numbers that depend on nothing but their place.

    They are tanh of a normal distribution, as long in JSON as a model's are.

    Args:
        hidden_dim: H of every output.
        grid: The shapes it takes.
        seconds_per_batch: How long `run` takes. It sleeps meanwhile, as if it computed on cores of its own.
    """

    def __init__(self, hidden_dim: int, grid: ShapeGrid, *, seconds_per_batch: float = 0.0) -> None:
        self.signature = EngineSignature("null", "cpu", "float32", hidden_dim, grid)
        self.compilations = 0
        self._seconds_per_batch = seconds_per_batch
        positions = grid.max_rows * grid.max_length
        numbers = np.tanh(np.random.default_rng(0).standard_normal((positions, hidden_dim)))
        self._numbers: Float32Array = numbers.astype(np.float32)  # (B·S, H)

    def warm_up(self, shapes: Sequence[BatchShape]) -> None:
        """Does nothing."""

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """Answers with views of the same numbers; only `sequence_output` is copied, to have its zeros."""
        if self._seconds_per_batch:
            time.sleep(self._seconds_per_batch)
        rows = self._numbers[: batch.shape.rows]  # (B, H)
        return ModelOutput(
            sequence_output=self._sequence(batch) if Output.SEQUENCE in outputs else None,
            pooled_output=rows if Output.POOLED in outputs else None,
            cls_output=rows if Output.CLS in outputs else None,
            mean_output=rows if Output.MEAN in outputs else None,
        )

    def close(self) -> None:
        """Does nothing."""

    def _sequence(self, batch: Batch) -> Float32Array:
        shape = batch.shape
        numbers = self._numbers[: shape.tokens].reshape(shape.rows, shape.length, -1)  # (B, S, H)
        return numbers * batch.padding_mask[:, :, None].astype(np.float32)
