"""Readers of formats of one row per line: JSON, which may be invalid in one row only, and plain text."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import numpy as np
import orjson
import pyarrow as pa

from electra_serve.bulk.options import Columns
from electra_serve.bulk.tables import BYTE_ORDER_MARK, CHUNK_BYTES, CHUNK_ROWS, IdTypes, no_column
from electra_serve.bulk.values import NOT_UTF8, NULL, Chunk, Problem, Value, join, text_cell
from electra_serve.errors import BulkConflict
from electra_serve.tensors import IntArray

MAX_LINE_BYTES: Final = 16 * 2**20
_MAX_LINES_BEFORE: Final = 2**20  # before the first object; more are no fault of rows but another format
_TOO_LONG: Final = Problem(f"the line must have at most {MAX_LINE_BYTES} bytes; got more")
_NO_OBJECT: Final = Problem("the line must be a JSON object; got something else")

_Line = bytes | Problem


def read_text_lines(stream: io.BufferedReader, ids: IdTypes) -> Iterator[Chunk]:
    """Yields chunks of lines; an empty line is an empty text."""
    if ids.columns != Columns():
        raise BulkConflict("lines of text have no columns; got names of columns")
    for lines in _chunks(stream):
        yield Chunk([line if isinstance(line, Problem) else text_cell(line) for line in lines])


def read_json_lines(stream: io.BufferedReader, ids: IdTypes) -> Iterator[Chunk]:
    """Yields chunks of objects; blank lines are skipped."""
    found = _FoundColumns(ids.columns)
    values: list[Value] = []
    cells: list[object] = []
    for lines in _chunks(stream):
        for line in lines:
            if isinstance(line, Problem) or line.strip():
                value, cell = _row(line, ids.columns, found)
                values.append(value)
                cells.append(cell)
        if found.objects >= CHUNK_ROWS:
            found.check()
        # The type of the ids is that of the first ones, which invalid lines do not have.
        if not found.objects and len(values) >= _MAX_LINES_BEFORE:
            raise BulkConflict(f"lines must be JSON objects; none of the first {len(values):,} is one")
        if found.objects:
            yield Chunk(values, None if ids.columns.id is None else ids.fit(_id_array(cells, ids)))
            values, cells = [], []
    found.check()
    if values:
        yield Chunk(values, None if ids.columns.id is None else ids.fit(_id_array(cells, ids)))


class _FoundColumns:
    """Names of members of the first objects, to detect a column that no row has."""

    def __init__(self, columns: Columns) -> None:
        self.objects = 0
        self._missing = set(columns.needed)
        self._needed = columns.needed
        self._seen: set[str] = set()

    def add(self, row: dict[str, object]) -> None:
        """Counts an object."""
        self.objects += 1
        if self._missing:
            self._missing.difference_update(row)
            self._seen.update(list(row)[:20])

    def check(self) -> None:
        """Raises `BulkConflict` if no object had a column."""
        if self._seen and self._missing:
            raise no_column(next(name for name in self._needed if name in self._missing), sorted(self._seen))


def _chunks(stream: io.BufferedReader) -> Iterator[list[_Line]]:
    lines: list[_Line] = []
    size = 0
    for line in _lines(stream):
        lines.append(line)
        size += len(line) if isinstance(line, bytes) else 0
        if len(lines) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield lines
            lines, size = [], 0
    if lines:
        yield lines


def _lines(stream: io.BufferedReader) -> Iterator[_Line]:
    line = stream.readline(MAX_LINE_BYTES + 1).removeprefix(BYTE_ORDER_MARK)
    while line:
        if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_LINE_BYTES)
            yield _TOO_LONG
        else:
            yield line.removesuffix(b"\n").removesuffix(b"\r")
        line = stream.readline(MAX_LINE_BYTES + 1)


def _row(line: _Line, columns: Columns, found: _FoundColumns) -> tuple[Value, object]:
    """Returns the value of a line, and its id."""
    if isinstance(line, Problem):
        return line, None
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return (_no_json(error.msg) if isinstance(text_cell(line), str) else NOT_UTF8), None
    if not isinstance(row, dict):
        return _NO_OBJECT, None
    found.add(row)
    cell = _text if columns.token_ids is None else _ids
    return join([cell(name, row.get(name)) for name in columns.values], columns), row.get(columns.id or "")


@lru_cache
def _no_json(reason: str) -> Problem:
    return Problem(f"the line must be JSON; got {reason.partition(': line')[0]}")


def _text(name: str, value: object) -> str | Problem:
    if value is None:
        return NULL
    return value if isinstance(value, str) else Problem(f"{name} must be a text; got {_kind(value)}")


def _ids(name: str, value: object) -> IntArray | Problem:
    if value is None:
        return NULL
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        return Problem(f"{name} must be a list of integers; got {_kind(value)}")
    try:
        return np.array(value, np.int64)
    except OverflowError:
        return Problem(f"{name} must have 64-bit integers; got a larger one")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "another list", str: "a text", bool: "a boolean"}
    return names.get(type(value), "a number")


def _id_array(cells: list[object], ids: IdTypes) -> pa.Array:
    """Returns ids as integers if all are, else as texts."""
    known = [cell for cell in cells if cell is not None]
    if not all(type(cell) is int or isinstance(cell, str) for cell in known):
        raise BulkConflict(f"column {ids.columns.id} must have integers or texts; got others")
    whole = all(type(cell) is int for cell in known)
    try:
        return pa.array(cells if whole else [None if cell is None else str(cell) for cell in cells])
    except OverflowError as error:
        raise BulkConflict(f"column {ids.columns.id} must have 64-bit integers; got a larger one") from error
