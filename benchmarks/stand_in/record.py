"""Batches that reached the stand-in engine: the engine writes them to a file, and tests read it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from electra_serve.tensors import Batch

HEAD: Final = 3
"""Recorded ids of each sequence: enough to identify it."""


@dataclass(frozen=True, slots=True)
class Reached:
    """One batch that reached an engine.

    Attributes:
        at_s: Time on the machine's monotonic clock.
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
    """Returns the first `HEAD` ids of each sequence of a batch."""
    return tuple(
        tuple(batch.token_ids[place.row, place.start : place.start + min(place.length, HEAD)].tolist())
        for place in batch.placements
    )


def read_record(path: Path) -> Sequence[Reached]:
    """Returns every batch so far, in order."""
    return [Reached.parse(line) for line in path.read_text().splitlines()] if path.exists() else []


def reached_sequences(path: Path) -> list[tuple[int, ...]]:
    """Returns the heads of all sequences that reached the engine, in order, with repetitions."""
    return [sequence for batch in read_record(path) for sequence in batch.sequences]
