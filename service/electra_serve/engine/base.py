"""The contract between the batcher and an engine.

Batches are packed: each sequence of a row has its own positions and attends only to itself. A sequence's outputs do not
depend on its placement, to 1e-5 in float32, but non-finite numbers may spread in the row. Only requested outputs are
copied to the host; without one of `TOKEN_OUTPUTS`, the last layer computes only first positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from electra_serve.tensors import ENCODER_OUTPUTS, Batch, BatchShape, ModelOutput, Outputs


@dataclass(frozen=True, slots=True)
class EngineSignature:
    """Static properties of an engine."""

    engine: str  # as in settings, such as `tensorflow`
    device: str  # such as `cpu` or `gpu:0`
    dtype: str  # of the computation; outputs are always float32
    hidden_dim: int  # H
    shapes: tuple[BatchShape, ...]  # from `electra_serve.engine.shapes`
    outputs: Outputs = ENCODER_OUTPUTS  # that it computes

    @property
    def max_length(self) -> int:
        """Length of the longest sequence."""
        return max(shape.length for shape in self.shapes)

    def single_row(self, length: int) -> BatchShape:
        """Returns the smallest shape of one row that holds a sequence of `length`."""
        fitting = [shape for shape in self.shapes if shape.rows == 1 and shape.length >= length]
        if not fitting:
            raise ValueError(f"length must be at most {self.max_length}; got {length}")
        return min(fitting)


class Engine(Protocol):
    """Computes batches synchronously; called from one thread at a time."""

    @property
    def signature(self) -> EngineSignature:
        """Static properties of the engine."""

    @property
    def compilations(self) -> int:
        """Programs traced or compiled since `warm_up`; 0 in a healthy service. Choices of kernels do not count."""

    def warm_up(self) -> None:
        """Compiles all programs that `run` needs. The first run of a shape may still be slower than later ones."""

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """Computes `outputs`, at least one, for `batch`.

        Returns:
            float32 arrays for `outputs`, possibly read-only, and None for the others.

        Raises:
            ValueError: The shape or an output is not in the signature, or a value of the batch is out of range.
            RuntimeError: The engine is not warm, or is closed.
            MemoryError: The device or host is out of memory; a smaller batch may fit.
            Exception: Any error of the backend; the batcher then finds the sequence at fault.
        """

    def close(self) -> None:
        """Frees all resources; further calls do nothing."""


@dataclass(frozen=True, slots=True)
class EngineSet:
    """The engines of one model."""

    engines: tuple[Engine, ...]  # share the queue; at least one
    lone: Engine | None = None  # runs single batches on all cores; None if `engines` do

    def all(self) -> tuple[Engine, ...]:
        """Returns all engines."""
        return self.engines if self.lone is None else (*self.engines, self.lone)
