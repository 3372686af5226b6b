"""What a stand-in engine is told to do: how fast it is, and which token ids make it fail.

A script travels to the process in an environment variable. Ids that mean a fault are ordinary ids of `electra_demo`'s
vocabulary, so that a fault is ordered by an ordinary request, over either transport.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Self

from electra_serve.tensors import BatchShape

VARIABLE: Final = "STAND_IN"
"""Not `ELECTRA_…`: the service refuses variables of that name that are no settings."""

RAISE: Final = 3990
"""A batch that holds this id raises."""
OUT_OF_MEMORY: Final = 3991
"""A batch that holds this id, and more than `Script.memory_sequences` sequences, raises `MemoryError`."""
NOT_FINITE: Final = 3992
"""A row of a batch that holds this id comes back as NaN, with every sequence in it."""
WEDGE: Final = 3993
"""A batch that holds this id never comes back."""
SLOW: Final = 3994
"""A batch that holds this id takes `SLOWER` times as long."""
END_THREAD: Final = 3995
"""After a batch that holds this id, the engine's thread ends; what it is given then is lost."""

WEDGE_CLOSE: Final = 3996
"""After a batch that holds this id, closing the engine never returns."""

SLOWER: Final = 10
ORDINARY_IDS: Final = range(5, 3990)
"""Ids that order nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How the stand-in behaves.

    Attributes:
        batch_s: Seconds that each batch takes.
        position_s: Seconds that each of its positions adds, padding included.
        faults: Whether ids order faults.
        memory_sequences: Most sequences that fit into its memory with `OUT_OF_MEMORY`.
        record: File to which each batch adds a line, as `tests.load.record` reads it; "" for none.
        leak_bytes: Bytes that each batch leaves behind: a control for tests of leaks.
        leak_descriptors: Whether each batch leaves an open file behind, likewise.
        waits: What the service's waits for closing engines and for returning memory are multiplied by.
        loop_stall_s: Seconds for which SIGUSR2 blocks the thread of the event loop; 0 leaves the signal alone.

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
    memory_sequences: int = 1
    record: str = ""
    leak_bytes: int = 0
    leak_descriptors: bool = False
    waits: float = 1.0
    loop_stall_s: float = 0.0

    def seconds(self, shape: BatchShape) -> float:
        """Seconds of a batch."""
        return self.batch_s + self.position_s * shape.positions

    def capacity(self, shape: BatchShape, length: int) -> float:
        """Sequences of `length` per second in full batches of `shape`, one after the other."""
        return shape.rows * (shape.length // length) / self.seconds(shape)

    @property
    def environment(self) -> Mapping[str, str]:
        """What to start the process with."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """The script of this process; the default where none was given."""
        return cls(**json.loads(environment.get(VARIABLE, "{}")))
