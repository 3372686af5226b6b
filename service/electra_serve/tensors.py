"""The values that travel between the layers: frozen, numpy, and free of any wire or engine type.

    TokenInput | TextInput      what a caller sent, not yet checked
    Encoding                    one checked sequence, (T,) int32 each
    Batch                       sequences packed into rows for an engine, (R, P) int32 each
    ModelOutput                 what an engine computed for a batch, (R, …) float32
    RowOutput                   one sequence's share of it

Shapes use R for the rows of a batch, P for the positions of a row, S for its slots, each of which holds one sequence,
T for one sequence's own length and H for the model's hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

Int32Array = NDArray[np.int32]
IntArray = NDArray[np.integer]
Float32Array = NDArray[np.float32]


class Output(StrEnum):
    """What a caller may ask for, named as in every API of this service."""

    SEQUENCE = "sequence_output"
    """Final hidden state of every position, (T, H); zeros where `padding_mask` is 0."""
    POOLED = "pooled_output"
    """tanh(dense(hidden state of position 0)), (H,): KerasHub's second output."""
    CLS = "cls_output"
    """Final hidden state of position 0, (H,)."""
    MEAN = "mean_output"
    """Mean of the final hidden states where `padding_mask` is 1, (H,)."""


SLOT_POSITIONS: Final = 4
"""A row has a slot for every so many positions, so a sequence takes at least that many."""

Outputs = frozenset[Output]

DEFAULT_OUTPUTS: Outputs = frozenset({Output.SEQUENCE, Output.POOLED})
TOKEN_OUTPUTS: Outputs = frozenset({Output.SEQUENCE, Output.MEAN})
"""Outputs that need the last layer at every position, not at [CLS] alone."""


class Truncation(StrEnum):
    """Rules for a sequence that is longer than the model takes."""

    NONE = "none"
    """Reject it."""
    RIGHT = "right"
    """Cut the end; of a pair, the end of the longer text first."""
    LEFT = "left"
    """Cut the beginning; of a pair, the beginning of the longer text first."""
    LONGEST_FIRST = "longest_first"
    """Cut the longer text of a pair first, at the side that the tokenizer's files name, by default the end."""
    ONLY_FIRST = "only_first"
    """Cut the first text of a pair alone, at that side."""
    ONLY_SECOND = "only_second"
    """Cut the second text of a pair alone, at that side."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenInput:
    """Sequences of ids as they came: integer arrays of any width, ranges and lengths not yet checked.

    Attributes:
        token_ids: One (T,) integer array per sequence.
        segment_ids: Likewise, or None for all zeros.
        padding_mask: Likewise, or None for all ones.
    """

    token_ids: Sequence[IntArray]
    segment_ids: Sequence[IntArray] | None = None
    padding_mask: Sequence[IntArray] | None = None


@dataclass(frozen=True, slots=True)
class TextInput:
    """Texts as they came: each a string, or a pair of strings that become segments 0 and 1."""

    texts: Sequence[str | tuple[str, str]]


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """One checked sequence.

    Attributes:
        token_ids: (T,) int32, 0 ≤ id < vocab_size.
        segment_ids: (T,) int32, 0 ≤ id < num_segments.
        padding_mask: (T,) int32, 0 or 1, at least one 1.
        compute_length: Positions the engine must see, 1 ≤ compute_length ≤ T: everything after it is
            masked, so it is cut before batching and comes back as zeros.
        real_tokens: How many positions have `padding_mask` 1.
    """

    token_ids: Int32Array
    segment_ids: Int32Array
    padding_mask: Int32Array
    compute_length: int
    real_tokens: int

    def __len__(self) -> int:
        return int(self.token_ids.shape[0])


@dataclass(frozen=True, slots=True, order=True)
class BatchShape:
    """The shape of a batch: `rows` rows of `length` positions."""

    rows: int
    length: int

    @property
    def positions(self) -> int:
        """Positions computed, padding included."""
        return self.rows * self.length

    @property
    def slots(self) -> int:
        """Most sequences in one row."""
        return max(1, self.length // SLOT_POSITIONS)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one sequence is in a batch.

    Attributes:
        row: The row.
        slot: Its place among the sequences of the row, below the shape's `slots`.
        start: The position of its first token.
        length: Its positions.
    """

    row: int
    slot: int
    start: int
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Sequences packed for an engine: R rows of P positions, each with S slots for sequences, all int32.

    Attributes:
        token_ids: (R, P).
        segment_ids: (R, P).
        position_ids: (R, P), the position within the sequence.
        sequence_ids: (R, P), one more than the slot of the position's sequence, masked positions included; 0 for
            padding.
        padding_mask: (R, P), the sequences' own; 0 for padding.
        starts: (R, S), the position of each slot's first token; 0 for empty slots.
        placements: Where each sequence is.
    """

    token_ids: Int32Array
    segment_ids: Int32Array
    position_ids: Int32Array
    sequence_ids: Int32Array
    padding_mask: Int32Array
    starts: Int32Array
    placements: tuple[Placement, ...]

    @property
    def shape(self) -> BatchShape:
        """Rows and their length."""
        rows, length = self.token_ids.shape
        return BatchShape(rows, length)

    @classmethod
    def pack(cls, encodings: Sequence[Encoding], placements: Sequence[Placement], shape: BatchShape) -> Batch:
        """Writes each of `encodings` at its placement; other positions are padding.

        Args:
            encodings: The sequences; of each, the first `compute_length` positions.
            placements: One per sequence, which must not overlap and must have its `compute_length`.
            shape: The shape to fill.

        Example:
            >>> one = np.ones(3, np.int32)
            >>> sequence = Encoding(one * 7, one * 0, one, compute_length=3, real_tokens=3)
            >>> places = [Placement(row=0, slot=0, start=0, length=3), Placement(row=0, slot=1, start=4, length=3)]
            >>> batch = Batch.pack([sequence, sequence], places, BatchShape(rows=1, length=8))
            >>> batch.sequence_ids.tolist(), batch.position_ids.tolist(), batch.starts.tolist()
            ([[1, 1, 1, 0, 2, 2, 2, 0]], [[0, 1, 2, 0, 0, 1, 2, 0]], [[0, 4]])
        """
        arrays = np.zeros((5, shape.rows, shape.length), np.int32)
        token_ids, segment_ids, position_ids, sequence_ids, padding_mask = arrays
        starts = np.zeros((shape.rows, shape.slots), np.int32)
        for encoding, place in zip(encodings, placements, strict=True):
            n = place.length
            span = slice(place.start, place.start + n)
            token_ids[place.row, span] = encoding.token_ids[:n]
            segment_ids[place.row, span] = encoding.segment_ids[:n]
            position_ids[place.row, span] = np.arange(n, dtype=np.int32)
            sequence_ids[place.row, span] = place.slot + 1
            padding_mask[place.row, span] = encoding.padding_mask[:n]
            starts[place.row, place.slot] = place.start
        return cls(token_ids, segment_ids, position_ids, sequence_ids, padding_mask, starts, tuple(placements))

    @classmethod
    def one_per_row(cls, encodings: Sequence[Encoding], shape: BatchShape) -> Batch:
        """Packs sequence i alone into row i; rows beyond them are padding."""
        places = [Placement(row, 0, 0, encoding.compute_length) for row, encoding in enumerate(encodings)]
        return cls.pack(encodings, places, shape)


@dataclass(frozen=True, slots=True, eq=False)
class RowOutput:
    """One sequence's outputs, float32; None where not asked for.

    Attributes:
        sequence_output: (n, H), the positions that were computed; `get` returns (T, H), with zeros after them.
        pooled_output: (H,).
        cls_output: (H,).
        mean_output: (H,).
        length: T of the caller's sequence; None: n.
    """

    sequence_output: Float32Array | None = None
    pooled_output: Float32Array | None = None
    cls_output: Float32Array | None = None
    mean_output: Float32Array | None = None
    length: int | None = None

    def size(self, output: Output) -> int:
        """Returns how many numbers `get` returns, without making them.

        Raises:
            KeyError: That output was not asked for.
        """
        array = self._computed(output)
        return array.size if self._is_whole(output, array) else (self.length or 0) * array.shape[1]

    def get(self, output: Output) -> Float32Array:
        """The array of one output.

        Raises:
            KeyError: That output was not asked for.
        """
        array = self._computed(output)
        if self._is_whole(output, array):
            return array
        whole = np.zeros((self.length or 0, array.shape[1]), np.float32)  # (T, H)
        whole[: len(array)] = array
        return whole

    def _computed(self, output: Output) -> Float32Array:
        array: Float32Array | None = getattr(self, output.value)
        if array is None:
            raise KeyError(output.value)
        return array

    def _is_whole(self, output: Output, array: Float32Array) -> bool:
        return output is not Output.SEQUENCE or self.length is None or self.length == len(array)


@dataclass(frozen=True, slots=True, eq=False)
class ModelOutput:
    """What an engine computed for a batch, float32; None where not asked for.

    Of empty slots and of padding, only `sequence_output` is defined: zeros.

    Attributes:
        sequence_output: (R, P, H), zeros where the batch's mask is 0.
        pooled_output: (R, S, H).
        cls_output: (R, S, H).
        mean_output: (R, S, H).
    """

    sequence_output: Float32Array | None = None
    pooled_output: Float32Array | None = None
    cls_output: Float32Array | None = None
    mean_output: Float32Array | None = None

    def extract(self, place: Placement, encoding: Encoding, outputs: Outputs) -> RowOutput:
        """Cuts out the sequence `encoding` at `place`, with just the `outputs` its caller wants.

        `sequence_output` grows back to the caller's own length when it is rendered: positions that were cut before
        batching are zeros. Nothing is copied here, on the event loop.

        Raises:
            KeyError: The engine did not compute one of `outputs`.
        """
        slot = place.row, place.slot
        span = place.row, slice(place.start, place.start + place.length)
        return RowOutput(
            sequence_output=_take(self.sequence_output, span) if Output.SEQUENCE in outputs else None,
            pooled_output=_take(self.pooled_output, slot) if Output.POOLED in outputs else None,
            cls_output=_take(self.cls_output, slot) if Output.CLS in outputs else None,
            mean_output=_take(self.mean_output, slot) if Output.MEAN in outputs else None,
            length=len(encoding),
        )


def _take(array: Float32Array | None, index: tuple[int, int | slice]) -> Float32Array:
    if array is None:
        raise KeyError("the engine did not compute an output that a row asked for")
    part: Float32Array = array[index]
    return part
