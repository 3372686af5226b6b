"""Speed of the stand-in engine, and the token ids that make it fail.

A script travels to the process in an environment variable. Ids that order a fault are ordinary ids of `electra_demo`'s
vocabulary, so any request over either transport can order one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Self

from electra_serve.tensors import BatchShape

VARIABLE: Final = "STAND_IN"
"""Not `ELECTRA_…`: the service rejects such variables if they are no settings."""

RAISE: Final = 3990
"""A batch with this id raises."""
OUT_OF_MEMORY: Final = 3991
"""A batch with this id and more than `Script.memory_sequences` sequences raises `MemoryError`."""
NOT_FINITE: Final = 3992
"""A row of a batch with this id becomes NaN, with every sequence in it."""
WEDGE: Final = 3993
"""A batch with this id never returns."""
SLOW: Final = 3994
"""A batch with this id takes `SLOWER` times as long."""
END_THREAD: Final = 3995
"""After a batch with this id, the engine's thread ends, and the next batch is lost."""

WEDGE_CLOSE: Final = 3996
"""After a batch with this id, closing the engine never returns."""

SLOWER: Final = 10
ORDINARY_IDS: Final = range(5, 3990)
"""Ids that order nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Behavior of the stand-in.

    Attributes:
        batch_s: Seconds of each batch.
        position_s: Seconds that each position of a batch adds, padding included.
        faults: Ids order faults.
        known: Outputs follow from the ids; otherwise they are fixed numbers that cost nothing.
        memory_sequences: Most sequences of a batch with `OUT_OF_MEMORY`.
        record: File to which each batch adds a line (`benchmarks.stand_in.record`); "" for none.
        leak_bytes: Bytes that each batch leaks: a control for tests of leaks.
        leak_descriptors: Open files that each batch leaks, likewise.
        waits: Factor of the service's waits for closing engines and for returning memory.
        loop_stall_s: Seconds for which SIGUSR2 blocks the thread of the event loop; 0 ignores the signal.

    Example:
        >>> script = Script(batch_s=0.02, position_s=0.0001)
        >>> script.seconds(BatchShape(4, 100)), script.capacity(BatchShape(4, 100), 50)
        (0.06, 133.33333333333334)
        >>> Script.read(script.environment) == script
        True
    """

    batch_s: float = 0.002
    position_s: float = 2e-5
    faults: bool = True
    known: bool = True
    memory_sequences: int = 1
    record: str = ""
    leak_bytes: int = 0
    leak_descriptors: int = 0
    waits: float = 1.0
    loop_stall_s: float = 0.0

    def seconds(self, shape: BatchShape) -> float:
        """Returns the seconds of a batch."""
        return self.batch_s + self.position_s * shape.positions

    def capacity(self, shape: BatchShape, length: int) -> float:
        """Returns sequences of `length` per second in full batches of `shape`."""
        return shape.rows * (shape.length // length) / self.seconds(shape)

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables of the process."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Reads this process' script; the default if there is none."""
        return cls(**json.loads(environment.get(VARIABLE, "{}")))
