"""Readers of Parquet, Arrow and CSV, on pyarrow."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pyarrow.types as kinds

from electra_serve.bulk.options import Columns
from electra_serve.bulk.values import Chunk, Problem, Value, plain_array, values_of
from electra_serve.errors import BulkConflict

CHUNK_ROWS: Final = 1024
CHUNK_BYTES: Final = 4 * 2**20
_CSV_BLOCK_BYTES: Final = 8 * 2**20  # the longest row
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
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
        """Casts ids to the type of the first ones, but no texts to numbers; raises `BulkConflict`."""
        if self._type is None:
            self._type = ids.type
        other = BulkConflict(f"column {self.columns.id} must be {self._type} in every row; got {ids.type}")
        if _are_texts(ids.type) and not _are_texts(self._type):  # 007 and 7 are different texts
            raise other
        try:
            return ids.cast(self._type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise other from error

    def chunk(self, batch: pa.RecordBatch) -> Chunk:
        """Makes a chunk of a table's columns."""
        check_columns(self.columns, batch.schema.names)
        ids = None if self.columns.id is None else self.fit(plain_array(batch[self.columns.id]))
        return Chunk(values_of({name: batch[name] for name in self.columns.values}, self.columns), ids)


def _are_texts(type_: pa.DataType) -> bool:
    return bool(kinds.is_string(type_) or kinds.is_large_string(type_))


def check_columns(columns: Columns, found: Sequence[str]) -> None:
    """Raises `BulkConflict` if a column is missing, or is there twice."""
    for name in columns.needed:
        if name not in found:
            raise no_column(name, found)
        if found.count(name) > 1:
            raise BulkConflict(f"the input must have one column {name}; it has {found.count(name)}")


def no_column(name: str, found: Sequence[str]) -> BulkConflict:
    """Returns the error for a missing column."""
    return BulkConflict(f"the input must have a column {name}; it has {', '.join(found)[:200] or 'none'}")


def parquet_rows(path: str) -> int:
    """Returns the rows of a Parquet file."""
    with pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def read_parquet(path: str, ids: IdTypes, skip: int) -> Iterator[tuple[int, Chunk]]:
    """Yields the chunks of a Parquet file and their first rows; row groups before `skip` are not read."""
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
        names = file.schema_arrow.names
        check_columns(ids.columns, names)
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


def _read_csv(stream: io.BufferedReader, ids: IdTypes, delimiter: str) -> Iterator[Chunk]:
    bad: dict[int, Problem] = {}  # by row

    def note(row: pc.InvalidRow) -> str:
        bad[row.number - 1 - _HEADER_ROWS] = _wrong_cells(row.expected_columns, row.actual_columns)
        return "skip" if len(bad) < _MAX_BAD_ROWS else "error"

    needed = ids.columns.needed
    header = _csv_header(stream, delimiter)
    if header is not None:
        check_columns(ids.columns, header)
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
    except pa.ArrowKeyError as error:  # of a header that was not peeked at as a whole
        raise BulkConflict(f"the input must have columns {', '.join(needed)}; {error}") from error
    row = 0
    for batch in reader:
        if ids.columns.token_ids is not None:
            raise BulkConflict("token ids must be lists, which CSV does not have; use JSONL, Parquet or Arrow")
        chunk = ids.chunk(_with_text_ids(batch, ids.columns))
        for start in range(0, len(chunk.values), CHUNK_ROWS):
            part = Chunk(
                chunk.values[start : start + CHUNK_ROWS], None if chunk.ids is None else chunk.ids[start:][:CHUNK_ROWS]
            )
            whole = _with_problems(part, row, bad)
            row += len(whole.values)
            yield whole
    yield _with_problems(ids.chunk(_no_rows(ids.columns)), row, bad)


def read_csv(stream: io.BufferedReader, ids: IdTypes, delimiter: str) -> Iterator[Chunk]:
    """Yields the chunks of a CSV file with a header; rows with another number of cells become problems."""
    try:
        yield from _read_csv(stream, ids, delimiter)
    except pa.ArrowInvalid as error:
        if "straddl" not in str(error):
            raise
        size = _CSV_BLOCK_BYTES // 2**20
        raise ValueError(f"a row has more than {size} MiB, or a quoted cell has no end") from error


def _csv_header(stream: io.BufferedReader, delimiter: str) -> list[str] | None:
    """Returns the names of the columns, without reading on; None if they are not in the buffer as one line."""
    head, end, _ = stream.peek(1).removeprefix(BYTE_ORDER_MARK).decode(errors="replace").partition("\n")
    if not end or not head.strip() or head.count('"') % 2:
        return None
    try:
        return next(csv.reader([head], delimiter=delimiter), None)
    except csv.Error:
        return None


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
