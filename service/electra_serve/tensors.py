"""The values that travel between the layers: frozen, numpy, and free of any wire or engine type.

    TokenInput | TextInput      what a caller sent, not yet checked
    Encoding                    one checked sequence, (T,) int32 each
    Batch                       sequences packed and padded for an engine, (B, S) int32 each
    ModelOutput                 what an engine computed for a batch, (B, …) float32
    RowOutput                   one sequence's share of it

Shapes use B for sequences in a batch, S for their padded length, T for one sequence's own length and H
for the model's hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

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
    """The padded shape of a batch: `rows` sequences of `length` positions."""

    rows: int
    length: int

    @property
    def tokens(self) -> int:
        """Positions computed, padding included."""
        return self.rows * self.length


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Sequences packed for an engine: `token_ids`, `segment_ids` and `padding_mask`, each (B, S) int32."""

    token_ids: Int32Array
    segment_ids: Int32Array
    padding_mask: Int32Array

    @property
    def shape(self) -> BatchShape:
        """The padded shape."""
        rows, length = self.token_ids.shape
        return BatchShape(rows, length)

    @classmethod
    def pack(cls, encodings: Sequence[Encoding], shape: BatchShape) -> Batch:
        """Pads `encodings` into one batch of `shape`.

        Positions after a row's `compute_length` are id 0, segment 0, mask 0. Rows beyond the encodings
        are padding too; their position 0 has mask 1, so that no softmax runs over nothing.

        Args:
            encodings: At most `shape.rows`, each with `compute_length` ≤ `shape.length`.
            shape: The shape to fill.

        Example:
            >>> one = np.ones(3, np.int32)
            >>> row = Encoding(one * 7, one * 0, one, compute_length=3, real_tokens=3)
            >>> Batch.pack([row], BatchShape(rows=2, length=4)).padding_mask.tolist()
            [[1, 1, 1, 0], [1, 0, 0, 0]]
        """
        token_ids, segment_ids, padding_mask = np.zeros((3, shape.rows, shape.length), np.int32)
        for row, encoding in enumerate(encodings):
            n = encoding.compute_length
            token_ids[row, :n] = encoding.token_ids[:n]
            segment_ids[row, :n] = encoding.segment_ids[:n]
            padding_mask[row, :n] = encoding.padding_mask[:n]
        padding_mask[len(encodings) :, 0] = 1
        return cls(token_ids, segment_ids, padding_mask)

    def padded(self, shape: BatchShape) -> Batch:
        """The same rows in a batch of `shape`, which is at least as large; padding is as in `pack`."""
        rows, length = self.token_ids.shape
        arrays = np.zeros((3, shape.rows, shape.length), np.int32)
        arrays[:, :rows, :length] = self.token_ids, self.segment_ids, self.padding_mask
        arrays[2, rows:, 0] = 1
        return Batch(*arrays)


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

    Attributes:
        sequence_output: (B, S, H), zeros where the batch's mask is 0.
        pooled_output: (B, H).
        cls_output: (B, H).
        mean_output: (B, H).
    """

    sequence_output: Float32Array | None = None
    pooled_output: Float32Array | None = None
    cls_output: Float32Array | None = None
    mean_output: Float32Array | None = None

    def row(self, index: int, encoding: Encoding, outputs: Outputs) -> RowOutput:
        """Cuts out row `index`, for the sequence `encoding`, with just the `outputs` its caller wants.

        `sequence_output` grows back to the caller's own length when it is rendered: positions that were cut before
        batching are zeros. Nothing is copied here, on the event loop.
        """
        return RowOutput(
            sequence_output=(
                _take(self.sequence_output, index)[: encoding.compute_length] if Output.SEQUENCE in outputs else None
            ),
            pooled_output=_take(self.pooled_output, index) if Output.POOLED in outputs else None,
            cls_output=_take(self.cls_output, index) if Output.CLS in outputs else None,
            mean_output=_take(self.mean_output, index) if Output.MEAN in outputs else None,
            length=len(encoding),
        )


def _take(array: Float32Array | None, index: int) -> Float32Array:
    if array is None:
        raise KeyError("the engine did not compute an output that a row asked for")
    row: Float32Array = array[index]
    return row
