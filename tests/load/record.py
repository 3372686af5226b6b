"""What reached the stand-in engine, batch by batch: it writes, the tests read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from electra_serve.tensors import Batch

HEAD: Final = 3
"""How many ids of each sequence are recorded: as many as tests need to tell their sequences apart."""


@dataclass(frozen=True, slots=True)
class Reached:
    """One batch that an engine was given.

    Attributes:
        at_s: When, on the machine's monotonic clock.
        sequences: The first `HEAD` ids of each.
    """

    at_s: float
    sequences: tuple[tuple[int, ...], ...]

    @classmethod
    def parse(cls, line: str) -> Self:
        """Reads a line.

        Example:
            >>> batch = Reached(1.5, ((7, 8, 9), (1, 2, 0)))
            >>> Reached.parse(batch.line()) == batch
            True
        """
        at_s, sequences = json.loads(line)
        return cls(at_s, tuple(tuple(sequence) for sequence in sequences))

    def line(self) -> str:
        """Writes a line."""
        return json.dumps([self.at_s, self.sequences]) + "\n"


def heads(batch: Batch) -> tuple[tuple[int, ...], ...]:
    """The first `HEAD` ids of each sequence of a batch."""
    return tuple(
        tuple(batch.token_ids[place.row, place.start : place.start + min(place.length, HEAD)].tolist())
        for place in batch.placements
    )


def read_record(path: Path) -> Sequence[Reached]:
    """Every batch so far, in order."""
    return [Reached.parse(line) for line in path.read_text().splitlines()] if path.exists() else []


def reached_sequences(path: Path) -> list[tuple[int, ...]]:
    """The heads of all sequences that reached the engine, in order; one that was run twice is there twice."""
    return [sequence for batch in read_record(path) for sequence in batch.sequences]
