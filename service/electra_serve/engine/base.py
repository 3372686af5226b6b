"""The whole contract between the batcher and whatever computes.

An engine is synchronous and is called from one thread at a time: that which loads it, and then the one that the batcher
keeps for it. It is built, warmed, run many times and closed. It never sees a request, a queue or an event loop.

Only the outputs asked for are copied to the host. When none of them is in
`electra_serve.tensors.TOKEN_OUTPUTS`, the last layer computes the first position of each sequence alone.

Batches are packed: a row holds several sequences, each with positions of its own and with attention to itself alone. A
sequence's outputs do not depend on its place or on what it shares its row with, to 1e-5 in float32. A sequence whose
numbers are not finite may spoil those of its row.

An engine rejects a batch of a shape that it does not list, or with an id that is out of range
(`electra_serve.engine.input_checks`). Backends left to themselves differ: a CPU raises, XLA clamps the id, a GPU's
gather returns zeros, and a new shape is quietly compiled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from electra_serve.tensors import Batch, BatchShape, ModelOutput, Outputs


@dataclass(frozen=True, slots=True)
class EngineSignature:
    """What an engine is, for planners and for people.

    Attributes:
        engine: Its name in settings, such as `tensorflow`.
        device: Where it computes, such as `cpu` or `gpu:0`.
        dtype: What it computes in; outputs are float32 all the same.
        hidden_dim: H of every output.
        shapes: The batch shapes that it takes; `electra_serve.engine.shapes` chooses them.
    """

    engine: str
    device: str
    dtype: str
    hidden_dim: int
    shapes: tuple[BatchShape, ...]

    @property
    def max_length(self) -> int:
        """Longest sequence."""
        return max(shape.length for shape in self.shapes)

    def single_row(self, length: int) -> BatchShape:
        """The smallest shape of one row that holds a sequence of `length`.

        Raises:
            ValueError: None does.

        Example:
            >>> shapes = (BatchShape(1, 16), BatchShape(1, 32), BatchShape(4, 32))
            >>> EngineSignature("openvino", "cpu", "float32", 256, shapes).single_row(17)
            BatchShape(rows=1, length=32)
        """
        fitting = [shape for shape in self.shapes if shape.rows == 1 and shape.length >= length]
        if not fitting:
            raise ValueError(f"length must be at most {self.max_length}; got {length}")
        return min(fitting)


class Engine(Protocol):
    """Computes batches. Called from one thread at a time."""

    @property
    def signature(self) -> EngineSignature:
        """What this engine is; constant for its life."""

    @property
    def compilations(self) -> int:
        """Whole programs traced or compiled since `warm_up` ended. Stays 0 in a healthy service.

        An engine that compiles once for any shape has 0 for ever. What it may do for a shape that is new to it, such as
        choosing kernels, is no compilation and not counted.
        """

    def warm_up(self) -> None:
        """Compiles everything that `run` can need. The first run of a shape may still take longer than later ones."""

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """Computes `outputs`, at least one, for `batch`.

        Returns:
            float32 arrays for `outputs`, which may be read-only, and None for the others.

        Raises:
            ValueError: The shape is not among the signature's, or a value of the batch is out of range.
            RuntimeError: The engine is not warm yet, or closed.
            MemoryError: Memory is short for this batch, the device's or the host's; a smaller one may fit.
            Exception: Whatever the backend raises; the batcher then finds the row at fault.
        """

    def close(self) -> None:
        """Frees what the engine holds. It is not run again; closing it twice does nothing more."""


@dataclass(frozen=True, slots=True)
class EngineSet:
    """The engines of one model.

    Attributes:
        engines: They share the queue under load; at least one.
        lone: Computes one batch with all cores, while nothing else runs; None: the others do that too.
    """

    engines: tuple[Engine, ...]
    lone: Engine | None = None

    def all(self) -> tuple[Engine, ...]:
        """Every engine."""
        return self.engines if self.lone is None else (*self.engines, self.lone)
