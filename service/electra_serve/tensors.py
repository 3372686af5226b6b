"""Values that pass between layers: frozen, numpy only, without wire or engine types.

Shapes: R rows of P positions, with S slots of one sequence each. T is the length of a sequence, H the hidden width, and
L the number of labels of a model's head.
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
    """Outputs of the model, named as in every API."""

    SEQUENCE = "sequence_output"  # (T, H), final hidden state of every position; zeros where `padding_mask` is 0
    POOLED = "pooled_output"  # (H,), tanh(dense(hidden state of position 0)): KerasHub's second output
    CLS = "cls_output"  # (H,), final hidden state of position 0, masked or not
    MEAN = "mean_output"  # (H,), mean of the final hidden states where `padding_mask` is 1
    EMBEDDING = "embedding"  # (H,), CLS or MEAN, normalized or not, as the model's embedding description says
    LOGITS = "logits"  # (L,), of a head that labels sequences
    TOKEN_LOGITS = "token_logits"  # noqa: S105  # (T, L), of a head that labels positions; zeros where masked


SLOT_POSITIONS: Final = 4  # positions per slot of a row, and the least that a sequence takes

Outputs = frozenset[Output]

DEFAULT_OUTPUTS: Outputs = frozenset({Output.SEQUENCE, Output.POOLED})
# computed by the engines of every model
ENCODER_OUTPUTS: Outputs = frozenset({Output.SEQUENCE, Output.POOLED, Output.CLS, Output.MEAN})
# computed by the engines of models with a head of that kind
HEAD_OUTPUTS: Outputs = frozenset({Output.LOGITS, Output.TOKEN_LOGITS})
# the service derives the others from them
ENGINE_OUTPUTS: Outputs = ENCODER_OUTPUTS | HEAD_OUTPUTS
# need the last layer at every position, not only at [CLS]
TOKEN_OUTPUTS: Outputs = frozenset({Output.SEQUENCE, Output.MEAN, Output.TOKEN_LOGITS})
# have a row for each position
POSITION_OUTPUTS: Outputs = frozenset({Output.SEQUENCE, Output.TOKEN_LOGITS})


class Truncation(StrEnum):
    """Rules for a sequence over the model's limit; the last three cut at the tokenizer's side, by default the end."""

    NONE = "none"  # reject
    RIGHT = "right"  # cut the end; of a pair, the end of the longer text first
    LEFT = "left"  # cut the beginning; of a pair, the beginning of the longer text first
    LONGEST_FIRST = "longest_first"  # cut the longer text of a pair first
    ONLY_FIRST = "only_first"  # cut the first text of a pair
    ONLY_SECOND = "only_second"  # cut the second text of a pair


class Aggregation(StrEnum):
    """Rules that join labeled tokens to spans, named as in transformers."""

    NONE = "none"  # each token by itself
    FIRST = "first"  # whole words, each with the label of its first token, then as `simple`
    SIMPLE = "simple"  # tokens in a row with the same label


@dataclass(frozen=True, slots=True, eq=False)
class TokenInput:
    """Sequences of token ids, not validated: (T,) integer arrays of any width."""

    token_ids: Sequence[IntArray]
    segment_ids: Sequence[IntArray] | None = None  # None for zeros
    padding_mask: Sequence[IntArray] | None = None  # None for ones


@dataclass(frozen=True, slots=True)
class TextInput:
    """Texts, not validated. A pair of strings becomes segments 0 and 1."""

    texts: Sequence[str | tuple[str, str]]


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """One validated sequence."""

    token_ids: Int32Array  # (T,), below the vocabulary size
    segment_ids: Int32Array  # (T,), below the number of segments
    padding_mask: Int32Array  # (T,), 0 or 1, with at least one 1
    compute_length: int  # up to the last unmasked position; the rest is cut before batching and returned as zeros
    real_tokens: int  # positions with mask 1

    def __len__(self) -> int:
        return int(self.token_ids.shape[0])


@dataclass(frozen=True, slots=True, order=True)
class BatchShape:
    """The shape of a batch: `rows` rows of `length` positions."""

    rows: int
    length: int

    @property
    def positions(self) -> int:
        """Positions to compute, padding included."""
        return self.rows * self.length

    @property
    def slots(self) -> int:
        """Limit of sequences in one row."""
        return max(1, self.length // SLOT_POSITIONS)


@dataclass(frozen=True, slots=True)
class Placement:
    """The place of one sequence in a batch."""

    row: int
    slot: int  # index among the sequences of the row
    start: int  # position of the first token
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Sequences packed into rows for an engine; all arrays are int32."""

    token_ids: Int32Array  # (R, P)
    segment_ids: Int32Array  # (R, P)
    position_ids: Int32Array  # (R, P), within the sequence
    sequence_ids: Int32Array  # (R, P), slot + 1 for each position of a sequence, masked or not; 0 for padding
    padding_mask: Int32Array  # (R, P), 0 for padding
    starts: Int32Array  # (R, S), position of each slot's first token; 0 for empty slots
    placements: tuple[Placement, ...]

    @property
    def shape(self) -> BatchShape:
        """Number of rows, and their length."""
        rows, length = self.token_ids.shape
        return BatchShape(rows, length)

    @classmethod
    def pack(cls, encodings: Sequence[Encoding], placements: Sequence[Placement], shape: BatchShape) -> Batch:
        """Writes the first `compute_length` positions of each sequence at its placement; other positions are padding.

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
        """Packs sequence i into row i; further rows are padding."""
        places = [Placement(row, 0, 0, encoding.compute_length) for row, encoding in enumerate(encodings)]
        return cls.pack(encodings, places, shape)


@dataclass(frozen=True, slots=True, eq=False)
class RowOutput:
    """Outputs of one sequence, float32; None if not requested."""

    sequence_output: Float32Array | None = None  # (n, H), computed positions; `get` adds zeros up to (T, H)
    pooled_output: Float32Array | None = None  # (H,)
    cls_output: Float32Array | None = None  # (H,)
    mean_output: Float32Array | None = None  # (H,)
    embedding: Float32Array | None = None  # (H,)
    logits: Float32Array | None = None  # (L,)
    token_logits: Float32Array | None = None  # (n, L), as `sequence_output`
    length: int | None = None  # T of the request's sequence; None for n

    def size(self, output: Output) -> int:
        """Returns the size of `get`'s array, without creating it; raises KeyError if the output was not requested."""
        array = self.computed(output)
        return array.size if self._is_whole(output, array) else (self.length or 0) * array.shape[1]

    def get(self, output: Output) -> Float32Array:
        """Returns the array of one output; raises KeyError if it was not requested."""
        array = self.computed(output)
        if self._is_whole(output, array):
            return array
        whole = np.zeros((self.length or 0, array.shape[1]), np.float32)  # (T, H) or (T, L)
        whole[: len(array)] = array
        return whole

    def computed(self, output: Output) -> Float32Array:
        """Returns the array of one output without the zeros that `get` adds; raises KeyError likewise."""
        array: Float32Array | None = getattr(self, output.value)
        if array is None:
            raise KeyError(output.value)
        return array

    def _is_whole(self, output: Output, array: Float32Array) -> bool:
        return output not in POSITION_OUTPUTS or self.length is None or self.length == len(array)


@dataclass(frozen=True, slots=True, eq=False)
class ModelOutput:
    """Outputs of a batch, float32; None if not requested. Padding is defined only in `POSITION_OUTPUTS`."""

    sequence_output: Float32Array | None = None  # (R, P, H), zeros where the batch's mask is 0
    pooled_output: Float32Array | None = None  # (R, S, H)
    cls_output: Float32Array | None = None  # (R, S, H)
    mean_output: Float32Array | None = None  # (R, S, H)
    logits: Float32Array | None = None  # (R, S, L)
    token_logits: Float32Array | None = None  # (R, P, L), zeros where the batch's mask is 0

    def extract(self, place: Placement, encoding: Encoding, outputs: Outputs) -> RowOutput:
        """Returns views of the sequence `encoding` at `place`; raises KeyError if an output was not computed."""
        slot = place.row, place.slot
        span = place.row, slice(place.start, place.start + place.length)
        return RowOutput(
            sequence_output=_take(self.sequence_output, span) if Output.SEQUENCE in outputs else None,
            pooled_output=_take(self.pooled_output, slot) if Output.POOLED in outputs else None,
            cls_output=_take(self.cls_output, slot) if Output.CLS in outputs else None,
            mean_output=_take(self.mean_output, slot) if Output.MEAN in outputs else None,
            logits=_take(self.logits, slot) if Output.LOGITS in outputs else None,
            token_logits=_take(self.token_logits, span) if Output.TOKEN_LOGITS in outputs else None,
            length=len(encoding),
        )


def _take(array: Float32Array | None, index: tuple[int, int | slice]) -> Float32Array:
    if array is None:
        raise KeyError("the engine did not compute a requested output")
    part: Float32Array = array[index]
    return part
