"""Questions to an encoder in its process: outputs, duration and padding."""

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
from electra_serve.tensors import Batch, Encoding, Outputs, RowOutput


@dataclass(frozen=True, slots=True)
class Encode:
    """Asks for the outputs of sequences that are queued together."""

    sequences: list[Encoding]
    outputs: Outputs

    def answer(self, encoder: Encoder, /) -> list[RowOutput]:
        """Returns the outputs of each sequence."""
        packed = encoder.pack(self.sequences)
        answers: dict[int, RowOutput] = {}
        for one, output in zip(packed, encoder.run([one.batch for one in packed], self.outputs), strict=True):
            for index, place in zip(one.sequences, one.batch.placements, strict=True):
                answers[index] = output.extract(place, self.sequences[index], self.outputs)
        return [answers[index] for index in range(len(self.sequences))]


@dataclass(frozen=True, slots=True)
class Time:
    """Asks for the time of some windows of sequences.

    Attributes:
        windows: Windows, each packed before the clock starts.
        outputs: Outputs to compute.
        least_s: Least seconds of repetitions, of which the median counts.
    """

    windows: Batches
    outputs: Outputs
    least_s: float = 0.0

    def answer(self, encoder: Encoder, /) -> float:
        """Returns the seconds of all; one batch runs before, to fill the caches."""
        packed = pack(encoder, self.windows)
        encoder.run(packed[:1], self.outputs)
        gc.collect()
        seconds = [self._once(encoder, packed)]
        while sum(seconds) < self.least_s:
            seconds.append(self._once(encoder, packed))
        return statistics.median(seconds)

    def _once(self, encoder: Encoder, packed: Sequence[Batch]) -> float:
        started = time.perf_counter()
        encoder.run(packed, self.outputs)
        return time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class CountPositions:
    """Asks for the positions computed for some windows of sequences, padding included."""

    windows: Batches

    def answer(self, encoder: Encoder, /) -> int:
        """Returns the positions of all batches."""
        return sum(batch.shape.positions for batch in pack(encoder, self.windows))


def start_encoder(spec: EncoderSpec, size: str) -> Worker[Encoder]:
    """An encoder in a process of its own.

    Raises:
        Unavailable: It cannot be built here.
    """
    return Worker(spec.name, partial(spec.build, size))


def pack(encoder: Encoder, windows: Batches) -> list[Batch]:
    """Packs each window."""
    return [packed.batch for window in windows for packed in encoder.pack(window)]
