"""Batch shapes of engines: at most 24, so that each can be compiled, kept and timed (docs/performance.md).

Single rows pad little. Batches of several rows are for load, when sequences fill rows of any length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from electra_serve.tensors import BatchShape

MAX_SHAPES: Final = 24
# Row lengths on CPUs, up to the longest of the model, which is always added.
SINGLE_ROWS: Final = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096)
# A GPU takes about the same time for any small batch.
SINGLE_ROWS_ON_GPUS: Final = (32, 64, 128, 256, 512, 1024, 2048, 4096)
CPU_BATCHES: Final = ((2, 64), (4, 64), (8, 64), (2, 128), (4, 128), (8, 128), (2, 256), (4, 256))  # rows and length
GPU_BATCHES: Final = ((4, 128), (16, 128), (64, 128), (4, 256), (16, 256), (32, 256), (4, 512), (8, 512), (16, 512))


@dataclass(frozen=True, slots=True)
class ShapeLimits:
    """Limits of an engine's shapes."""

    max_length: int  # of a sequence
    max_positions: int  # in a shape of several rows


def cpu_shapes(limits: ShapeLimits) -> tuple[BatchShape, ...]:
    """Returns the shapes of an engine on a CPU."""
    return _shapes(limits, SINGLE_ROWS, CPU_BATCHES)


def gpu_shapes(limits: ShapeLimits) -> tuple[BatchShape, ...]:
    """Returns the shapes of an engine on a GPU."""
    return _shapes(limits, SINGLE_ROWS_ON_GPUS, GPU_BATCHES)


def single_rows(shapes: tuple[BatchShape, ...]) -> tuple[BatchShape, ...]:
    """Returns the shapes of one row."""
    return tuple(shape for shape in shapes if shape.rows == 1)


def _shapes(
    limits: ShapeLimits, lengths: tuple[int, ...], batches: tuple[tuple[int, int], ...]
) -> tuple[BatchShape, ...]:
    longest = limits.max_length
    single = {BatchShape(1, min(length, longest)) for length in (*lengths, longest)}
    several = {BatchShape(rows, min(length, longest)) for rows, length in batches}
    fitting = {shape for shape in several if shape.positions <= limits.max_positions}
    return tuple(sorted(single | fitting, key=lambda shape: (shape.positions, shape.rows)))
