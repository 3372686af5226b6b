"""Encoders that are timed offline: the computing part of `electra_serve.engine.base.Engine`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from electra_serve.tensors import Batch, BatchShape, Encoding, ModelOutput, Outputs


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """A batch and the sequences in it.

    Attributes:
        batch: To be run.
        sequences: The index of each of its sequences among those that were packed.
    """

    batch: Batch
    sequences: Sequence[int]


class Encoder(Protocol):
    """Computes batches."""

    def pack(self, encodings: Sequence[Encoding]) -> list[PackedBatch]:
        """Returns the batches of sequences that are queued together."""

    def run(self, batches: Sequence[Batch], outputs: Outputs) -> list[ModelOutput]:
        """Computes at least `outputs` of each batch on all cores, as numpy arrays on the host."""


class PaddingEncoder:
    """An encoder of batches of any shape, with one sequence per row and one batch at a time."""

    def pack(self, encodings: Sequence[Encoding]) -> list[PackedBatch]:
        """See `Encoder.pack`: one batch, padded to the longest sequence."""
        return [PackedBatch(pad(encodings), range(len(encodings)))]

    def run(self, batches: Sequence[Batch], outputs: Outputs) -> list[ModelOutput]:
        """See `Encoder.run`."""
        return [self.run_one(batch, outputs) for batch in batches]

    def run_one(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        """Computes at least `outputs` of one batch; vectors are (R, 1, H)."""
        raise NotImplementedError


def pad(encodings: Sequence[Encoding]) -> Batch:
    """One sequence in each row, padded to the longest."""
    return Batch.one_per_row(encodings, BatchShape(len(encodings), max(map(len, encodings))))


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """An encoder that can be built in any process.

    Attributes:
        name: As it is reported, such as `openvino/bfloat16`.
        dtype: What it computes in: decides which peak it is held against, and how well it must agree.
        ours: Whether it is an engine of this service.
        build: Builds it for a size; a module's own function, or a `partial` of one.
        sizes: The architectures that it is measured on.
    """

    name: str
    dtype: str
    ours: bool
    build: Callable[[str], Encoder]
    sizes: tuple[str, ...] = ("small", "base")
