"""An engine that computes nothing, so that what is left is the front end's own cost."""

from __future__ import annotations

import time

import numpy as np

from electra_serve.engine.base import EngineSignature
from electra_serve.tensors import Batch, BatchShape, Float32Array, ModelOutput, Output, Outputs


class NullEngine:
    """Answers at once, or after a fixed time, with numbers that depend on nothing but their place.

    They are tanh of a normal distribution, as long in JSON as a model's are.

    Args:
        hidden_dim: H of every output.
        shapes: The batch shapes that it takes.
        seconds_per_batch: How long `run` takes. It sleeps meanwhile, as if it computed on cores of its own.
    """

    def __init__(self, hidden_dim: int, shapes: tuple[BatchShape, ...], *, seconds_per_batch: float = 0.0) -> None:
        self.signature = EngineSignature("null", "cpu", "float32", hidden_dim, shapes)
        self.compilations = 0
        self._seconds_per_batch = seconds_per_batch
        positions = max(shape.positions for shape in shapes)
        numbers = np.tanh(np.random.default_rng(0).standard_normal((positions, hidden_dim)))
        self._numbers: Float32Array = numbers.astype(np.float32)  # (R·P, H)

    def warm_up(self) -> None:
        """Does nothing."""

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """Answers with views of the same numbers; only `sequence_output` is copied, to have its zeros."""
        if self._seconds_per_batch:
            time.sleep(self._seconds_per_batch)
        vectors = self._numbers[: batch.starts.size].reshape(*batch.starts.shape, -1)  # (R, S, H)
        return ModelOutput(
            sequence_output=self._sequence(batch) if Output.SEQUENCE in outputs else None,
            pooled_output=vectors if Output.POOLED in outputs else None,
            cls_output=vectors if Output.CLS in outputs else None,
            mean_output=vectors if Output.MEAN in outputs else None,
        )

    def close(self) -> None:
        """Does nothing."""

    def _sequence(self, batch: Batch) -> Float32Array:
        numbers = self._numbers[: batch.token_ids.size].reshape(*batch.token_ids.shape, -1)  # (R, P, H)
        return numbers * batch.padding_mask[:, :, None].astype(np.float32)
