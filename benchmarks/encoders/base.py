"""What is timed offline: the part of `electra_serve.engine.base.Engine` that computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from electra_serve.engine.base import ShapeGrid
from electra_serve.tensors import Batch, ModelOutput, Outputs

MAX_LENGTH: Final = 512
MAX_ROWS: Final = 32


class AnyShape:
    """The grid of what takes batches of any shape.

    Args:
        max_rows: Largest batch.
    """

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self._grid = ShapeGrid(max_rows=max_rows, max_length=MAX_LENGTH)

    @property
    def grid(self) -> ShapeGrid:
        """See `Encoder.grid`."""
        return self._grid

    @property
    def max_tokens(self) -> int:
        """See `Encoder.max_tokens`."""
        return self._grid.max_rows * self._grid.max_length


class Encoder(Protocol):
    """Computes batches."""

    @property
    def grid(self) -> ShapeGrid:
        """The shapes it takes."""

    @property
    def max_tokens(self) -> int:
        """Most positions in a batch of several rows, padding included."""

    def run(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """Computes at least `outputs`, as numpy arrays on the host."""


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """An encoder that can be built, in whatever process.

    Attributes:
        name: As it is reported, such as `openvino/bfloat16`.
        dtype: What it computes in: decides which peak it is held against, and how well it must agree.
        ours: Whether it is an engine of this service.
        build: Builds it for a size; a module's own function, or a `partial` of one.
        sizes: The architectures that it is measured on.
    """

    name: str
    dtype: str
    ours: bool
    build: Callable[[str], Encoder]
    sizes: tuple[str, ...] = ("small", "base")
