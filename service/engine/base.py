"""The whole contract between the batcher and whatever computes.

An engine is synchronous and is called from one thread only: the thread that the batcher keeps for it.
It is built, warmed, run many times and closed. It never sees a request, a queue or an event loop.

Only the outputs asked for are computed and copied. When none of them is in
`service.tensors.TOKEN_OUTPUTS`, the last layer computes the [CLS] row alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.tensors import Batch, BatchShape, ModelOutput, Outputs


@dataclass(frozen=True, slots=True)
class ShapeGrid:
    """The batch shapes that an engine runs without compiling anew.

    Attributes:
        max_rows: Most sequences in one batch.
        max_length: Longest padded sequence.
        rows: The allowed row counts in ascending order, the last equal to `max_rows`; empty: any.
        lengths: The allowed lengths in ascending order, the last equal to `max_length`; empty: any.

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
    """Computes batches. Called from one thread."""

    @property
    def signature(self) -> EngineSignature:
        """What this engine is; constant for its life."""

    @property
    def compilations(self) -> int:
        """Graphs traced or compiled since `warm_up` ended. Stays 0 in a healthy service."""

    def warm_up(self, shapes: Sequence[BatchShape]) -> None:
        """Compiles everything that `run` can need and runs each of `shapes` once."""

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """Computes `outputs`, at least one, for `batch`.

        Returns:
            float32 arrays for `outputs` and None for the others.

        Raises:
            Exception: Whatever the backend raises; the batcher then finds the row at fault.
        """

    def close(self) -> None:
        """Frees what the engine holds. It is not run again."""
