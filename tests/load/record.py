"""What reached the stand-in engine, batch by batch: it writes, the tests read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

HEAD: Final = 3
"""How many ids of each row are recorded: as many as tests need to tell their rows apart."""


@dataclass(frozen=True, slots=True)
class Reached:
    """One batch that an engine was given.

    Attributes:
        at_s: When, on the machine's monotonic clock.
        length: Positions of each row, padding included.
        rows: The first `HEAD` ids of each row.
    """

    at_s: float
    length: int
    rows: tuple[tuple[int, ...], ...]

    @classmethod
    def parse(cls, line: str) -> Self:
        """Reads a line.

        Example:
            >>> batch = Reached(1.5, 4, ((7, 8, 9), (1, 2, 0)))
            >>> Reached.parse(batch.line()) == batch
            True
        """
        at_s, length, rows = json.loads(line)
        return cls(at_s, length, tuple(tuple(row) for row in rows))

    def line(self) -> str:
        """Writes a line."""
        return json.dumps([self.at_s, self.length, self.rows]) + "\n"


def read_record(path: Path) -> Sequence[Reached]:
    """Every batch so far, in order."""
    return [Reached.parse(line) for line in path.read_text().splitlines()] if path.exists() else []


def reached_rows(path: Path) -> list[tuple[int, ...]]:
    """The heads of all rows that reached the engine, in order; a row that was run twice is there twice."""
    return [row for batch in read_record(path) for row in batch.rows]
