"""Rows of the input: a text, a pair of texts or ids; a row that cannot be encoded is a `Problem`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from electra_serve.bulk.options import Columns
from electra_serve.errors import BulkConflict
from electra_serve.tensors import IntArray


@dataclass(frozen=True, slots=True)
class Problem:
    """Reason why a row is rejected."""

    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class TokenRow:
    """Token ids of a row, not validated, with segment ids and a mask if the input has them."""

    token_ids: IntArray
    segment_ids: IntArray | None = None
    padding_mask: IntArray | None = None


Value: TypeAlias = str | tuple[str, str] | TokenRow | Problem
_Cell: TypeAlias = str | IntArray | Problem

NULL = Problem("the value must not be null; got null")
NOT_UTF8 = Problem("the text must be UTF-8; got other bytes")


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Consecutive rows of one file; `ids` has the id column."""

    values: Sequence[Value]
    ids: pa.Array | None = None

    def skip(self, rows: int) -> Chunk:
        """Returns the chunk without its first rows."""
        return self if not rows else Chunk(self.values[rows:], None if self.ids is None else self.ids[rows:])


def values_of(columns: Mapping[str, pa.Array], names: Columns) -> list[Value]:
    """Returns the rows of a table's columns; raises `BulkConflict` for a column of another type."""
    read: Callable[[str, pa.Array], Iterator[_Cell]] = _texts if names.token_ids is None else _id_lists
    cells = [read(name, columns[name]) for name in names.values]
    return [join(row, names) for row in zip(*cells, strict=True)]


def join(cells: Sequence[_Cell], names: Columns) -> Value:
    """Makes a value of the cells of a row, in the order of `names.values`.

    Example:
        >>> join(("a", "b"), Columns(text_pair="second"))
        ('a', 'b')
    """
    problem = next((cell for cell in cells if isinstance(cell, Problem)), None)
    if problem is not None:
        return problem
    if names.token_ids is None:
        return cells[0] if len(cells) == 1 else tuple(cells)  # type: ignore[return-value]  # texts
    arrays = dict(zip(names.values, cells, strict=True))
    return TokenRow(
        arrays[names.token_ids],  # type: ignore[arg-type]  # arrays
        arrays.get(names.segment_ids or ""),  # type: ignore[arg-type]
        arrays.get(names.padding_mask or ""),  # type: ignore[arg-type]
    )


def text_cell(value: bytes | None) -> str | Problem:
    """Decodes a text."""
    if value is None:
        return NULL
    try:
        return value.decode()
    except UnicodeDecodeError:
        return NOT_UTF8


def plain_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Returns a column as one array, without dictionary, runs and views, for which pyarrow has few functions."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # no chunks
        array = pa.array([], column.type)
    if isinstance(array, pa.DictionaryArray):
        array = plain_array(array.dictionary).take(array.indices)
    elif isinstance(array, pa.RunEndEncodedArray):
        array = plain_array(pc.run_end_decode(array))
    view = kinds.is_string_view(array.type) or kinds.is_binary_view(array.type)
    return array.cast(pa.string() if kinds.is_string_view(array.type) else pa.binary()) if view else array


def plain_id(ids: pa.Array, index: int) -> object:
    """Returns an id as a Python object, or its text if there is none, as for nanoseconds."""
    try:
        return ids[index].as_py()
    except (ValueError, OverflowError):
        return " ".join(ids.slice(index, 1).to_string().split())[2:-2]


def _texts(name: str, column: pa.Array) -> Iterator[str | Problem]:
    array = plain_array(column)
    if kinds.is_null(array.type):
        return iter([NULL] * len(array))
    texts = kinds.is_string(array.type) or kinds.is_large_string(array.type)
    if not texts and not kinds.is_binary(array.type) and not kinds.is_large_binary(array.type):
        raise BulkConflict(f"column {name} must have texts; got {array.type}")
    # Bytes, since one text that is not UTF-8 would fail the conversion of all.
    return map(text_cell, array.cast(pa.large_binary()).to_pylist())


def _id_lists(name: str, column: pa.Array) -> Iterator[IntArray | Problem]:
    array = plain_array(column)
    if kinds.is_null(array.type):
        return iter([NULL] * len(array))
    lists = kinds.is_list(array.type) or kinds.is_large_list(array.type) or kinds.is_fixed_size_list(array.type)
    if not lists or not (kinds.is_integer(array.type.value_type) or kinds.is_null(array.type.value_type)):
        raise BulkConflict(f"column {name} must have lists of integers; got {array.type}")
    return _split(array.cast(pa.large_list(array.type.value_type)))


def _split(lists: pa.LargeListArray) -> Iterator[IntArray | Problem]:
    ends = lists.offsets.to_numpy()
    nulls = lists.is_null().to_numpy(zero_copy_only=False)
    holes = lists.values.is_null().to_numpy(zero_copy_only=False)
    numbers = lists.values.fill_null(0).cast(pa.int64(), safe=False).to_numpy() if holes.size else np.zeros(0, np.int64)
    for row, (start, end) in enumerate(pairwise(ends)):
        yield NULL if nulls[row] or holes[start:end].any() else numbers[start:end]
