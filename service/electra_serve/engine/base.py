"""The whole contract between the batcher and whatever computes.

An engine is synchronous and is called from one thread at a time: that which loads it, and then the one that the batcher
keeps for it. It is built, warmed, run many times and closed. It never sees a request, a queue or an event loop.

Only the outputs asked for are copied to the host. When none of them is in
`electra_serve.tensors.TOKEN_OUTPUTS`, the last layer computes the [CLS] row alone.

An engine answers for what it takes and refuses the rest: a batch whose shape is not in its grid, or whose ids
are not in its vocabulary, raises (`electra_serve.engine.input_checks`). Backends left to themselves differ: a CPU
raises, XLA clamps the id, a GPU's gather returns zeros, and a new shape is quietly compiled.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from electra_serve.tensors import Batch, BatchShape, ModelOutput, Outputs


@dataclass(frozen=True, slots=True)
class ShapeGrid:
    """The batch shapes that an engine runs without compiling anew.

    Attributes:
        max_rows: Most sequences in one batch.
        max_length: Longest padded sequence.
        rows: The allowed row counts in ascending order, the last equal to `max_rows`; empty: any.
        lengths: The allowed lengths in ascending order, the last equal to `max_length`; empty: any.
        max_tokens: Most positions in a batch of more than one row, padding included; None: any.

    Example:
        >>> ShapeGrid(max_rows=8, max_length=512).fit(3, 17)
        BatchShape(rows=3, length=17)
        >>> ShapeGrid(max_rows=8, max_length=512, rows=(1, 8), lengths=(32, 512)).fit(3, 17)
        BatchShape(rows=8, length=32)
    """

    max_rows: int
    max_length: int
    rows: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    max_tokens: int | None = None

    def fit(self, rows: int, length: int) -> BatchShape:
        """The smallest allowed shape that holds `rows` sequences of at most `length` positions.

        Raises:
            ValueError: No allowed shape is large enough.
        """
        if not (1 <= rows <= self.max_rows and 1 <= length <= self.max_length):
            raise ValueError(
                f"rows must be 1 to {self.max_rows} and length 1 to {self.max_length}; received {rows} and {length}"
            )
        return BatchShape(
            self.rows[bisect_left(self.rows, rows)] if self.rows else rows,
            self.lengths[bisect_left(self.lengths, length)] if self.lengths else length,
        )

    def holds(self, shape: BatchShape) -> bool:
        """Whether batches of exactly that shape are run.

        Example:
            >>> grid = ShapeGrid(max_rows=8, max_length=512, lengths=(32, 512), max_tokens=1024)
            >>> [grid.holds(BatchShape(*shape)) for shape in [(3, 32), (3, 33), (3, 512), (1, 512)]]
            [True, False, False, True]
        """
        return (
            1 <= shape.rows <= self.max_rows
            and 1 <= shape.length <= self.max_length
            and (not self.rows or shape.rows in self.rows)
            and (not self.lengths or shape.length in self.lengths)
            and (self.max_tokens is None or shape.rows == 1 or shape.tokens <= self.max_tokens)
        )

    def shapes(self) -> Iterator[BatchShape]:
        """Every shape of a grid that lists its row counts and its lengths; nothing where either is free.

        Example:
            >>> grid = ShapeGrid(max_rows=2, max_length=32, rows=(1, 2), lengths=(8, 32), max_tokens=16)
            >>> [(shape.rows, shape.length) for shape in grid.shapes()]
            [(1, 8), (1, 32), (2, 8)]
        """
        listed = (BatchShape(rows, length) for rows in self.rows for length in self.lengths)
        return filter(self.holds, listed)


@dataclass(frozen=True, slots=True)
class EngineSignature:
    """What an engine is, for planners and for people.

    Attributes:
        engine: Its name in settings, such as `tensorflow`.
        device: Where it computes, such as `cpu` or `gpu:0`.
        dtype: What it computes in; outputs are float32 all the same.
        hidden_dim: H of every output.
        grid: The shapes it takes.
    """

    engine: str
    device: str
    dtype: str
    hidden_dim: int
    grid: ShapeGrid


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

    def warm_up(self, shapes: Sequence[BatchShape]) -> None:
        """Compiles everything that `run` can need and runs each of `shapes` once."""

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """Computes `outputs`, at least one, for `batch`.

        Returns:
            float32 arrays for `outputs`, which may be read-only, and None for the others.

        Raises:
            ValueError: The shape is not in the signature's grid, or an id, segment or mask is out of range.
            RuntimeError: The engine is not warm yet, or closed.
            MemoryError: Memory is short for this batch, the device's or the host's; a smaller one may fit.
            Exception: Whatever the backend raises; the batcher then finds the row at fault.
        """

    def close(self) -> None:
        """Frees what the engine holds. It is not run again; closing it twice does nothing more."""
