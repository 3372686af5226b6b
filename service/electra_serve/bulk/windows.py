"""Cuts rows into windows, which are computed together, and windows into shards, which are resumed whole.

The cuts depend only on the rows since the start of a shard. So a run that is resumed at a shard computes the same
batches as an uninterrupted one. A window is bounded in bytes as well as in rows: this bounds the memory of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from electra_serve.bulk.preparation import Prepared, Row
from electra_serve.bulk.reading import START, Position
from electra_serve.bulk.values import Chunk, Problem

WINDOW_ROWS: Final = 4096
WINDOW_BYTES: Final = 64 * 2**20
SHARD_ROWS: Final = 16_384
SHARD_BYTES: Final = 256 * 2**20


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """Most rows and bytes of a window and of a shard; a window has at least one row."""

    window_rows: int = WINDOW_ROWS
    window_bytes: int = WINDOW_BYTES
    shard_rows: int = SHARD_ROWS
    shard_bytes: int = SHARD_BYTES


DEFAULT_LIMITS: Final = WindowLimits()


@dataclass(slots=True, eq=False)
class Window:
    """Consecutive rows of a run."""

    first_row: int  # number of its first row
    rows: list[Row] = field(default_factory=list)
    id_parts: list[pa.Array] = field(default_factory=list)
    files: dict[int, int] = field(default_factory=dict)  # of rejected rows: index in the window → index of the file
    end: Position = START  # the row after the last one
    ends_shard: bool = False

    @property
    def accepted(self) -> list[tuple[int, Prepared]]:
        """Rows to encode, with their indices."""
        return [(index, row) for index, row in enumerate(self.rows) if isinstance(row, Prepared)]

    @property
    def ids(self) -> pa.Array | None:
        """Values of the id column."""
        return pa.concat_arrays(self.id_parts) if self.id_parts else None


def cut_windows(
    chunks: Iterator[tuple[Position, Chunk]],
    prepare: Callable[[Chunk], list[Row]],
    weigh: Callable[[Prepared], int],
    limits: WindowLimits,
    first_row: int = 0,
) -> Iterator[Window]:
    """Yields windows of prepared rows, from the start of a shard on; the last one ends its shard.

    Args:
        chunks: Chunks of the input and their positions.
        prepare: Tokenizes and checks the rows of a chunk.
        weigh: Returns the bytes that a row takes until it is written.
        limits: Limits of windows and shards.
        first_row: Number of the first row.
    """
    window = Window(first_row)
    size = shard_rows = shard_bytes = 0
    for position, chunk in chunks:
        begin = 0
        for index, row in enumerate(prepare(chunk)):
            weight = weigh(row) if isinstance(row, Prepared) else 0
            full = len(window.rows) >= limits.window_rows or (window.rows and size + weight > limits.window_bytes)
            if full or shard_rows >= limits.shard_rows:
                _add_ids(window, chunk, begin, index)
                window.ends_shard = shard_rows >= limits.shard_rows or shard_bytes >= limits.shard_bytes
                if window.ends_shard:
                    shard_rows = shard_bytes = 0
                yield window
                window = Window(window.first_row + len(window.rows))
                begin, size = index, 0
            if isinstance(row, Problem):
                window.files[len(window.rows)] = position.file
            window.rows.append(row)
            window.end = Position(position.file, position.row + index + 1)
            size, shard_rows, shard_bytes = size + weight, shard_rows + 1, shard_bytes + weight
        _add_ids(window, chunk, begin, len(chunk.values))
    if window.rows:
        window.ends_shard = True
        yield window


def _add_ids(window: Window, chunk: Chunk, begin: int, end: int) -> None:
    if chunk.ids is not None and end > begin:
        window.id_parts.append(chunk.ids[begin:end])
