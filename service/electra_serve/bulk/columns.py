"""Columns of the output: vectors, hidden states, and labels with scores, as Arrow arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from electra_serve.bulk.engines import Computed
from electra_serve.bulk.options import LABELS, VectorType
from electra_serve.bulk.preparation import Prepared
from electra_serve.bulk.values import TokenRow
from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.sentence_transformers import EmbeddingConfig
from electra_serve.presets.tokenizers.steps import finish
from electra_serve.serving.classification.find import Found, find_in_steps
from electra_serve.serving.classification.plan import Plan
from electra_serve.serving.classification.results import Label, Span
from electra_serve.serving.embedding import LEAST_NORM, SOURCES
from electra_serve.serving.validation import Validated
from electra_serve.tensors import (
    HEAD_OUTPUTS,
    POSITION_OUTPUTS,
    Float32Array,
    Output,
    RowOutput,
    TextInput,
    TokenInput,
)

_ID_BYTES: Final = 12  # of a position: id, segment and mask
_CHARACTER_BYTES: Final = 32  # of a position: its characters and their offsets
_ARROW: Final[Mapping[VectorType, pa.DataType]] = {"float32": pa.float32(), "float16": pa.float16()}
_LABEL_FIELDS: Final[Mapping[str, pa.DataType]] = {
    "labels": pa.list_(pa.string()),
    "scores": pa.list_(pa.float32()),
}
_SPAN_FIELDS: Final[Mapping[str, pa.DataType]] = {
    **_LABEL_FIELDS,
    "starts": pa.list_(pa.int32()),
    "ends": pa.list_(pa.int32()),
    "texts": pa.list_(pa.string()),
    "parts": pa.list_(pa.int32()),
}


class OutputColumns:
    """Makes the output columns of rows.

    Args:
        names: Outputs, and perhaps `labels`, in the order of the columns.
        hidden_dim: Width of the encoder's outputs.
        embedding: Computation of the output `embedding`.
        dtype: Type of stored numbers.
        head: Head of the model.
        plan: Options of its labels; None without labels.
    """

    def __init__(
        self,
        names: Sequence[str],
        hidden_dim: int,
        embedding: EmbeddingConfig,
        dtype: VectorType,
        head: HeadConfig | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.names = tuple(names)
        self.embedding = embedding
        self.dtype = dtype
        self.head = head
        self.plan = plan
        self._hidden_dim = hidden_dim
        # Outputs that the engines compute, and the length of their last axis
        self.widths = {output: self._width(output) for output in sorted({self._source(name) for name in names})}
        by_position = [width for output, width in self.widths.items() if output in POSITION_OUTPUTS]
        self._position_bytes = 4 * sum(by_position) + _ID_BYTES + (_CHARACTER_BYTES if plan else 0)
        self._sequence_bytes = 4 * (sum(self.widths.values()) - sum(by_position))

    @property
    def fields(self) -> list[pa.Field]:
        """Fields of the output, in order."""
        fields: list[pa.Field] = []
        for name in self.names:
            if name == LABELS:
                spans = self.head is not None and self.head.output is Output.TOKEN_LOGITS
                kinds = _SPAN_FIELDS if spans else _LABEL_FIELDS
                fields += [pa.field(key, kind) for key, kind in kinds.items()]
            else:
                fields.append(pa.field(name, self._type(Output(name))))
        return fields

    def weigh(self, row: Prepared) -> int:
        """Returns the bytes that a row takes until it is written."""
        return row.positions * self._position_bytes + len(row.encodings) * self._sequence_bytes

    def arrays(self, rows: Sequence[Prepared], computed: Computed) -> list[pa.Array]:
        """Returns the columns of rows, whose sequences `computed` has in the same order.

        A row of several sequences has labels only.
        """
        arrays: list[pa.Array] = []
        for name in self.names:
            if name == LABELS:
                arrays += self._labels(rows, computed)
            elif Output(name) in POSITION_OUTPUTS:
                arrays.append(self._states(computed.positions[Output(name)], Output(name)))
            else:
                arrays.append(vector_array(self._vectors(Output(name), computed), self.dtype))
        return arrays

    def _source(self, name: str) -> Output:
        if name == LABELS and self.head is not None:
            return self.head.output
        return SOURCES[self.embedding.pooling] if name == Output.EMBEDDING else Output(name)

    def _width(self, output: Output) -> int:
        return len(self.head.labels) if output in HEAD_OUTPUTS and self.head is not None else self._hidden_dim

    def _type(self, output: Output) -> pa.DataType:
        vector = pa.list_(_ARROW[self.dtype], self._width(output))
        return pa.list_(vector) if output in POSITION_OUTPUTS else vector

    def _vectors(self, output: Output, computed: Computed) -> Float32Array:
        vectors = computed.vectors[self._source(output)]
        return unit_vectors(vectors) if output is Output.EMBEDDING and self.embedding.normalize else vectors

    def _states(self, states: Sequence[Float32Array | None], output: Output) -> pa.Array:
        width = self._width(output)
        kept = [np.zeros((0, width), np.float32) if array is None else array for array in states]
        ends = np.cumsum([0, *map(len, kept)], dtype=np.int32)
        flat = np.concatenate([np.zeros((0, width), np.float32), *kept])  # (ΣT, W)
        return pa.ListArray.from_arrays(pa.array(ends), vector_array(flat, self.dtype))

    def _labels(self, rows: Sequence[Prepared], computed: Computed) -> list[pa.Array]:
        if self.plan is None or self.head is None:
            raise ValueError("labels need the plan of a head")
        if not rows:
            return [pa.array([], field.type) for field in self.fields if field.name in _SPAN_FIELDS]
        found = finish(find_in_steps(self.plan, _inputs(rows), _validated(rows), self._logits(computed)))
        if self.head.output is Output.LOGITS:
            readers: Mapping[str, Callable[[Label | Span], object]] = {
                "labels": lambda item: item.label,
                "scores": lambda item: item.score,
            }
        else:
            readers = _SPAN_READERS
        return [_list_column(found, read, _SPAN_FIELDS[name]) for name, read in readers.items()]

    def _logits(self, computed: Computed) -> list[RowOutput]:
        if self.head is not None and self.head.output is Output.LOGITS:
            return [RowOutput(logits=row) for row in computed.vectors[Output.LOGITS]]
        width = self._width(Output.TOKEN_LOGITS)
        return [
            RowOutput(token_logits=np.zeros((len(encoding), width), np.float32) if array is None else array)
            for array, encoding in zip(computed.positions[Output.TOKEN_LOGITS], computed.encodings, strict=True)
        ]


_SPAN_READERS: Final[Mapping[str, Callable[[Label | Span], object]]] = {
    "labels": lambda item: item.label,
    "scores": lambda item: item.score,
    "starts": lambda item: _place(item, "start"),
    "ends": lambda item: _place(item, "end"),
    "texts": lambda item: getattr(item, "text", None),
    "parts": lambda item: getattr(item, "part", None),
}
"""Columns of spans; places count characters, or positions of token ids."""


def _place(item: Label | Span, end: str) -> object:
    characters = getattr(item, end, None)
    return getattr(item, f"token_{end}", None) if characters is None else characters


def _list_column(found: Sequence[Found], read: Callable[[Label | Span], object], type_: pa.DataType) -> pa.Array:
    return pa.array([[read(item) for item in items] for items in found], type_)


def _inputs(rows: Sequence[Prepared]) -> TokenInput | TextInput:
    values = [row.value for row in rows]
    texts = [value for value in values if isinstance(value, (str, tuple))]
    if texts:
        return TextInput(texts)
    return TokenInput([value.token_ids for value in values if isinstance(value, TokenRow)])


def _validated(rows: Sequence[Prepared]) -> Validated:
    encodings = tuple(encoding for row in rows for encoding in row.encodings)
    aligned = all(row.alignments is not None for row in rows)
    return Validated(
        encodings,
        (False,) * len(encodings),
        tuple(alignment for row in rows for alignment in row.alignments or ()) if aligned else None,
        tuple(len(row.encodings) for row in rows),
    )


def unit_vectors(vectors: Float32Array) -> Float32Array:
    """Scales each row of (N, H) to length 1."""
    norms = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(LEAST_NORM))  # (N, 1)
    units: Float32Array = vectors / norms
    return units


def vector_array(vectors: Float32Array, dtype: VectorType) -> pa.FixedSizeListArray:
    """Makes a column of the rows of (N, W)."""
    flat = np.ascontiguousarray(vectors, dtype).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, _ARROW[dtype]), vectors.shape[1])
