"""What is asked of an encoder in its process: its outputs, or how long it takes."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.encoders.base import Encoder, EncoderSpec
from benchmarks.orders import Batches
from benchmarks.worker import Worker
from electra_serve.tensors import Batch, Encoding, ModelOutput, Outputs


@dataclass(frozen=True, slots=True)
class Encode:
    """Asks for the outputs of some batches."""

    batches: Batches
    outputs: Outputs

    def answer(self, encoder: Encoder, /) -> list[ModelOutput]:
        """The outputs of each."""
        return [encoder.run(batch, self.outputs) for batch in pack(encoder, self.batches)]


@dataclass(frozen=True, slots=True)
class Time:
    """Asks how long some batches take, one after the other.

    Attributes:
        batches: Packed before the clock runs.
        outputs: What to compute.
        least_s: They are run again and again for so long; the median is answered.
    """

    batches: Batches
    outputs: Outputs
    least_s: float = 0.0

    def answer(self, encoder: Encoder, /) -> float:
        """Seconds for all of them. One batch is run before: the caches are full of others' work."""
        packed = pack(encoder, self.batches)
        encoder.run(packed[0], self.outputs)
        gc.collect()
        seconds = [self._once(encoder, packed)]
        while sum(seconds) < self.least_s:
            seconds.append(self._once(encoder, packed))
        return statistics.median(seconds)

    def _once(self, encoder: Encoder, packed: Sequence[Batch]) -> float:
        started = time.perf_counter()
        for batch in packed:
            encoder.run(batch, self.outputs)
        return time.perf_counter() - started


def start_encoder(spec: EncoderSpec, size: str) -> Worker[Encoder]:
    """An encoder in a process of its own.

    Raises:
        Unavailable: It cannot be built here.
    """
    return Worker(spec.name, partial(spec.build, size))


def pack(encoder: Encoder, batches: Batches) -> list[Batch]:
    """Each batch, padded to its longest row or to the next shape that the encoder takes; in halves where none is."""
    return [packed for rows in batches for packed in _pack(encoder, rows)]


def _pack(encoder: Encoder, rows: Sequence[Encoding]) -> list[Batch]:
    shape = encoder.grid.fit(len(rows), max(map(len, rows)))
    if len(rows) > 1 and shape.tokens > encoder.max_tokens:
        middle = len(rows) // 2
        return [*_pack(encoder, rows[:middle]), *_pack(encoder, rows[middle:])]
    return [Batch.pack(rows, shape)]
