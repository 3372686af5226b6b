"""Readers of Parquet, Arrow and CSV, on pyarrow."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from electra_serve.bulk.options import Columns
from electra_serve.bulk.values import Chunk, Problem, Value, plain_array, values_of
from electra_serve.errors import BulkError

CHUNK_ROWS: Final = 1024
CHUNK_BYTES: Final = 4 * 2**20
_CSV_BLOCK_BYTES: Final = 8 * 2**20  # the longest row
_FILE_MAGIC: Final = b"ARROW1"
_HEADER_ROWS: Final = 1
_MAX_BAD_ROWS: Final = 100_000  # in a block; more are no fault of rows but a wrong delimiter


class IdTypes:
    """Names of the columns, and the type of the id column: that of its first chunk."""

    def __init__(self, columns: Columns, type_: pa.DataType | None = None) -> None:
        self.columns = columns
        self._type = type_

    @property
    def type(self) -> pa.DataType:
        """Type of the ids; of row numbers without an id column, or without rows."""
        return pa.int64() if self._type is None else self._type

    def fit(self, ids: pa.Array) -> pa.Array:
        """Casts ids to the type of the first ones; raises `BulkError`."""
        if self._type is None:
            self._type = ids.type
        try:
            return ids.cast(self._type)
        except pa.ArrowInvalid as error:
            raise BulkError(f"column {self.columns.id} must be {self._type} in every row; got {ids.type}") from error

    def chunk(self, batch: pa.RecordBatch) -> Chunk:
        """Makes a chunk of a table's columns."""
        missing = [name for name in self.columns.needed if name not in batch.schema.names]
        if missing:
            raise no_column(missing[0], batch.schema.names)
        ids = None if self.columns.id is None else self.fit(plain_array(batch[self.columns.id]))
        return Chunk(values_of({name: batch[name] for name in self.columns.values}, self.columns), ids)


def no_column(name: str, found: list[str]) -> BulkError:
    """Returns the error for a missing column."""
    return BulkError(f"the input must have a column {name}; it has {', '.join(found)[:200] or 'none'}")


def parquet_rows(path: str) -> int:
    """Returns the rows of a Parquet file."""
    with pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def read_parquet(path: str, ids: IdTypes, skip: int) -> Iterator[tuple[int, Chunk]]:
    """Yields the chunks of a Parquet file and their first rows; row groups before `skip` are not read."""
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
        names = file.schema_arrow.names
        missing = [name for name in ids.columns.needed if name not in names]
        if missing:
            raise no_column(missing[0], names)
        row = 0
        for group in range(file.num_row_groups):
            found = file.metadata.row_group(group)
            if row + found.num_rows <= skip:
                row += found.num_rows
                continue
            for batch in file.iter_batches(
                _rows_at_once(found.total_byte_size, found.num_rows),
                row_groups=[group],
                columns=list(ids.columns.needed),
                use_threads=False,
            ):
                dropped = min(max(skip - row, 0), batch.num_rows)
                if dropped < batch.num_rows:
                    yield row + dropped, ids.chunk(batch.slice(dropped))
                row += batch.num_rows


def _rows_at_once(size: int, rows: int) -> int:
    """Returns the rows of a chunk, fewer if they are long."""
    return max(1, min(CHUNK_ROWS, CHUNK_BYTES * rows // max(size, 1)))


def arrow_rows(path: str) -> int | None:
    """Returns the rows of an Arrow file; None for a stream, which does not know them."""
    with pa.memory_map(path) as source:
        if not _is_file(source):
            return None
        reader = pa.ipc.open_file(source)
        return sum(int(reader.get_batch(index).num_rows) for index in range(reader.num_record_batches))


def read_arrow(path: str, ids: IdTypes, skip: int) -> Iterator[tuple[int, Chunk]]:
    """Yields the chunks of an Arrow file or stream and their first rows, without reading all into memory."""
    with pa.memory_map(path) as source:
        if not _is_file(source):
            yield from _slices(pa.ipc.open_stream(source), ids, skip)
            return
        reader = pa.ipc.open_file(source)
        batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        yield from _slices(batches, ids, skip)


def read_arrow_stream(stream: io.BufferedReader, ids: IdTypes) -> Iterator[Chunk]:
    """Yields the chunks of an Arrow stream that cannot seek."""
    if stream.peek(len(_FILE_MAGIC)).startswith(_FILE_MAGIC):
        raise ValueError("it is an Arrow file, which cannot be read from its start to its end; use an Arrow stream")
    for _, chunk in _slices(pa.ipc.open_stream(pa.PythonFile(stream, "r")), ids, 0):
        yield chunk


def _slices(batches: Iterable[pa.RecordBatch], ids: IdTypes, skip: int) -> Iterator[tuple[int, Chunk]]:
    row = 0
    for batch in batches:
        chunk_rows = _rows_at_once(batch.nbytes, batch.num_rows) if batch.num_rows else 1
        for start in range(min(max(skip - row, 0), batch.num_rows), batch.num_rows, chunk_rows):
            yield row + start, ids.chunk(batch.slice(start, chunk_rows))
        row += batch.num_rows


def _is_file(source: pa.NativeFile) -> bool:
    magic: bytes = source.read(len(_FILE_MAGIC))
    source.seek(0)
    return magic == _FILE_MAGIC


def read_csv(stream: io.BufferedReader, ids: IdTypes, delimiter: str) -> Iterator[Chunk]:
    """Yields the chunks of a CSV file with a header; rows with another number of cells become problems."""
    bad: dict[int, Problem] = {}  # by row

    def note(row: pc.InvalidRow) -> str:
        bad[row.number - 1 - _HEADER_ROWS] = _wrong_cells(row.expected_columns, row.actual_columns)
        return "skip" if len(bad) < _MAX_BAD_ROWS else "error"

    needed = ids.columns.needed
    try:
        reader = pc.open_csv(
            stream,
            read_options=pc.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
            parse_options=pc.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note, ignore_empty_lines=True
            ),
            convert_options=pc.ConvertOptions(
                include_columns=list(needed), column_types=dict.fromkeys(needed, pa.binary()), strings_can_be_null=False
            ),
        )
    except pa.ArrowKeyError as error:
        raise BulkError(f"cannot read the input: {error}") from error
    row = 0
    for batch in reader:
        if ids.columns.token_ids is not None:
            raise BulkError("token ids must be lists, which CSV does not have; use JSONL, Parquet or Arrow")
        chunk = ids.chunk(_with_text_ids(batch, ids.columns))
        for start in range(0, len(chunk.values), CHUNK_ROWS):
            part = Chunk(
                chunk.values[start : start + CHUNK_ROWS], None if chunk.ids is None else chunk.ids[start:][:CHUNK_ROWS]
            )
            whole = _with_problems(part, row, bad)
            row += len(whole.values)
            yield whole
    yield _with_problems(ids.chunk(_no_rows(ids.columns)), row, bad)


@lru_cache
def _wrong_cells(expected: int, actual: int) -> Problem:
    return Problem(f"the row must have {expected} cells; got {actual}")


def _with_text_ids(batch: pa.RecordBatch, columns: Columns) -> pa.RecordBatch:
    """Decodes the ids, which are texts: types that are read from the first rows would not fit later ones."""
    if columns.id is None:
        return batch
    decoded = [cell.decode(errors="replace") for cell in batch[columns.id].to_pylist()]
    arrays = {name: batch[name] for name in batch.schema.names} | {columns.id: pa.array(decoded, pa.string())}
    return pa.record_batch(arrays)


def _no_rows(columns: Columns) -> pa.RecordBatch:
    return pa.record_batch({name: pa.array([], pa.string()) for name in columns.needed})


def _with_problems(chunk: Chunk, first: int, bad: dict[int, Problem]) -> Chunk:
    """Inserts the rows that pyarrow left out, in their places; `first` is the first row of the chunk."""
    if not bad:
        return chunk
    values: list[Value] = list(chunk.values)
    ids = None if chunk.ids is None else chunk.ids.to_pylist()
    for row in sorted(bad):
        if row - first > len(values):
            break
        values.insert(row - first, bad.pop(row))
        if ids is not None:
            ids.insert(row - first, None)
    return Chunk(values, None if chunk.ids is None else pa.array(ids, chunk.ids.type))
