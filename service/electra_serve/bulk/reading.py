"""Reads input files in chunks of bounded size, from any row on."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from electra_serve.bulk.inputs import Compression, Format, InputFile, reading
from electra_serve.bulk.lines import read_json_lines, read_text_lines
from electra_serve.bulk.options import Columns
from electra_serve.bulk.tables import (
    IdTypes,
    arrow_rows,
    parquet_rows,
    read_arrow,
    read_arrow_stream,
    read_csv,
    read_parquet,
)
from electra_serve.bulk.values import Chunk
from electra_serve.errors import BulkConflict, BulkError

_BUFFER_BYTES: Final = 2**20
_MAGIC: Final[Sequence[tuple[bytes, Compression]]] = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A row of an input: index of its file, and the rows before it in that file."""

    file: int = 0
    row: int = 0


START: Final = Position()


class Reader:
    """Reads the files of an input in order."""

    def __init__(self, files: Sequence[InputFile], columns: Columns, id_type: pa.DataType | None = None) -> None:
        self._files = files
        self._columns = columns
        self._ids = IdTypes(columns, id_type)
        self._stream: io.RawIOBase | None = None  # of the file that is being read
        self._size_before = self._rows_read = 0

    @property
    def files(self) -> Sequence[InputFile]:
        """The files."""
        return self._files

    @property
    def id_type(self) -> pa.DataType:
        """Type of the id column; known after the first chunk."""
        return self._ids.type

    @property
    def estimated_rows(self) -> int | None:
        """Rows of the whole input, from the part of its bytes that was read; None for standard input."""
        total = sum(file.size for file in self._files)
        stream = self._stream
        try:
            inside = 0 if stream is None else stream.tell()
        except (OSError, ValueError):  # closed meanwhile
            return None
        done = self._size_before + inside
        return round(self._rows_read * total / done) if done and self._rows_read else None

    def count_rows(self) -> int | None:
        """Returns the number of rows if all files know it without being read."""
        return count_rows(self._files)

    def read(self, start: Position = START, first_row: int = 0) -> Iterator[tuple[Position, Chunk]]:
        """Yields chunks with the positions of their first rows; `first_row` rows are before `start`.

        Raises:
            BulkError: A file cannot be read, or a column is missing or has another type.
        """
        self._rows_read = first_row
        for index, file in enumerate(self._files):
            if index >= start.file:
                skip = start.row if index == start.file else 0
                with reading(file.path), _naming(file):
                    for row, chunk in self._read_file(file, skip):
                        self._rows_read += len(chunk.values)
                        yield Position(index, row), chunk
                file.check_unchanged()
            self._size_before += file.size

    def _read_file(self, file: InputFile, skip: int) -> Iterator[tuple[int, Chunk]]:
        if file.format == "parquet":
            yield from read_parquet(file.path, self._ids, skip)
            return
        if file.format == "arrow" and not file.is_stdin and file.compression is None:
            yield from read_arrow(file.path, self._ids, skip)
            return
        with self._opened(file) as stream:
            row = 0
            for chunk in STREAMED[file.format](stream, self._ids):
                count = len(chunk.values)
                if row + count > skip:
                    dropped = max(skip - row, 0)
                    yield row + dropped, chunk.skip(dropped)
                row += count

    @contextmanager
    def _opened(self, file: InputFile) -> Iterator[Any]:
        """Opens a stream of the decompressed bytes."""
        if file.is_stdin and sys.stdin is None:  # 0 may be another file then
            raise BulkError("cannot read standard input: it is closed")
        # Not sys.stdin: a thread that waits in its buffer would abort the interpreter's exit.
        raw = os.fdopen(os.dup(0), "rb", 0) if file.is_stdin else Path(file.path).open("rb", 0)  # noqa: SIM115
        with raw:
            self._stream = raw
            buffered = io.BufferedReader(raw, _BUFFER_BYTES)
            start = buffered.peek(1)  # standard input has no name that shows it
            compression = file.compression or next((kind for magic, kind in _MAGIC if start.startswith(magic)), None)
            if compression is None:
                yield buffered
            else:
                with pa.CompressedInputStream(pa.PythonFile(buffered, "r"), compression) as decompressed:
                    yield io.BufferedReader(decompressed, _BUFFER_BYTES)
        self._stream = None


@contextmanager
def _naming(file: InputFile) -> Iterator[None]:
    """Adds the name of a file to an error of its content."""
    try:
        yield
    except BulkConflict as error:
        raise BulkConflict(f"cannot read {file.shown}: {error}") from error


def count_rows(files: Sequence[InputFile]) -> int | None:
    """Returns the rows of files; None if one does not know them without being read."""
    counters = {"parquet": parquet_rows, "arrow": arrow_rows}
    total = 0
    for file in files:
        if file.format not in counters or file.is_stdin or file.compression is not None:
            return None
        with reading(file.path):
            rows = counters[file.format](file.path)
        if rows is None:
            return None
        total += rows
    return total


STREAMED: Final[Mapping[Format, Callable[[io.BufferedReader, IdTypes], Iterator[Chunk]]]] = {
    "arrow": read_arrow_stream,
    "csv": lambda stream, ids: read_csv(stream, ids, ","),
    "tsv": lambda stream, ids: read_csv(stream, ids, "\t"),
    "jsonl": read_json_lines,
    "text": read_text_lines,
}
"""Readers of formats that are read from the first byte on."""
