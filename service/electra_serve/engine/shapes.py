"""The batch shapes that engines run: at most 24, so that each can be compiled, kept and timed.

Lone sequences get rows that pad little, so row lengths grow by a third or a half each. Batches of several rows are for
load, when sequences fill the rows of any length: a few shapes do. docs/performance.md has the measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from electra_serve.tensors import BatchShape

MAX_SHAPES: Final = 24
SINGLE_ROWS: Final = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096)
"""Lengths of single rows on CPUs, as far as the model takes them; its longest is always added."""
SINGLE_ROWS_ON_GPUS: Final = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""GPUs take about the same time for any small batch."""
CPU_BATCHES: Final = ((2, 64), (4, 64), (8, 64), (2, 128), (4, 128), (8, 128), (2, 256), (4, 256))
"""Rows and lengths of batches of several rows."""
GPU_BATCHES: Final = ((4, 128), (16, 128), (64, 128), (4, 256), (16, 256), (32, 256), (4, 512), (8, 512), (16, 512))


@dataclass(frozen=True, slots=True)
class ShapeLimits:
    """Bounds for the shapes of an engine.

    Attributes:
        max_length: Longest sequence of the model.
        max_positions: Most positions in a shape of several rows.
    """

    max_length: int
    max_positions: int


def cpu_shapes(limits: ShapeLimits) -> tuple[BatchShape, ...]:
    """The shapes of an engine on a CPU.

    Example:
        >>> [(shape.rows, shape.length) for shape in cpu_shapes(ShapeLimits(max_length=64, max_positions=128))]
        [(1, 16), (1, 32), (1, 48), (1, 64), (2, 64)]
    """
    return _shapes(limits, SINGLE_ROWS, CPU_BATCHES)


def gpu_shapes(limits: ShapeLimits) -> tuple[BatchShape, ...]:
    """The shapes of an engine on a GPU."""
    return _shapes(limits, SINGLE_ROWS_ON_GPUS, GPU_BATCHES)


def single_rows(shapes: tuple[BatchShape, ...]) -> tuple[BatchShape, ...]:
    """Those of one row."""
    return tuple(shape for shape in shapes if shape.rows == 1)


def _shapes(
    limits: ShapeLimits, lengths: tuple[int, ...], batches: tuple[tuple[int, int], ...]
) -> tuple[BatchShape, ...]:
    longest = limits.max_length
    single = {BatchShape(1, min(length, longest)) for length in (*lengths, longest)}
    several = {BatchShape(rows, min(length, longest)) for rows, length in batches}
    fitting = {shape for shape in several if shape.positions <= limits.max_positions}
    return tuple(sorted(single | fitting, key=lambda shape: (shape.positions, shape.rows)))
