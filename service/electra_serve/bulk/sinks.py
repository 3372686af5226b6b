"""Writers of shards and of the whole output: Parquet, Arrow, and one numpy array."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, Literal, Protocol, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from electra_serve.bulk.inputs import describe
from electra_serve.errors import BulkConflict, BulkError

OutputFormat = Literal["parquet", "arrow", "npy"]

OUTPUT_FORMATS: Final[tuple[OutputFormat, ...]] = get_args(OutputFormat)
_COPY_BYTES: Final = 2**20


class Sink(Protocol):
    """Receives the rows of a shard."""

    def write(self, batch: pa.RecordBatch, kept: Sequence[int], rows: int) -> None:
        """Writes the encoded rows of a window of `rows` rows; `kept` has their indices in it."""

    def close(self) -> None:
        """Writes the end of the file."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors of writing `path` into a `BulkError` of one line."""
    try:
        yield
    except OSError as error:
        raise BulkError(f"cannot write {path}: {describe(error)}") from error


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Writes a file that appears under its name whole and on disk, or not at all; raises `BulkError`."""
    scratch = path.with_name(f"{path.name}.tmp")
    with writing(path):
        try:
            with _open(scratch) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            scratch.replace(path)
            sync_folder(path.parent)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise


def _open(path: Path) -> BinaryIO:
    return path.open("wb")


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _ParquetSink:
    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._writer = _parquet_writer(stream, schema)

    def write(self, batch: pa.RecordBatch, kept: Sequence[int], rows: int) -> None:  # noqa: ARG002  # see `Sink`
        self._writer.write_batch(batch)

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._writer.is_open = False  # otherwise its destructor would write again


class _ArrowSink:
    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_file(stream, schema)

    def write(self, batch: pa.RecordBatch, kept: Sequence[int], rows: int) -> None:  # noqa: ARG002  # see `Sink`
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _NumpySink:
    """Bytes of the vectors, of the only output, in the order of the input; NaN for rejected rows."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        self._stream = stream
        self._dtype, self._width = vector_type(schema)

    def write(self, batch: pa.RecordBatch, kept: Sequence[int], rows: int) -> None:
        vectors = np.full((rows, self._width), np.nan, self._dtype)
        vectors[list(kept)] = batch.column(batch.num_columns - 1).flatten().to_numpy().reshape(-1, self._width)
        self._stream.write(vectors.data)

    def close(self) -> None:
        pass


SINKS: Final[Mapping[OutputFormat, Callable[[BinaryIO, pa.Schema], Sink]]] = {
    "parquet": _ParquetSink,
    "arrow": _ArrowSink,
    "npy": _NumpySink,
}


@contextmanager
def opened(format_: OutputFormat, stream: BinaryIO, schema: pa.Schema) -> Iterator[Sink]:
    """Opens a sink, and closes it even after an error, since an open one would write into a closed file later."""
    sink = SINKS[format_](stream, schema)
    try:
        yield sink
    except BaseException:
        with suppress(OSError, ValueError):
            sink.close()
        raise
    sink.close()


def vector_type(schema: pa.Schema) -> tuple[np.dtype[np.generic], int]:
    """Returns dtype and width of the only output; raises `BulkConflict` if it is no vector, or one of several."""
    kind = schema.field(len(schema) - 1).type
    if len(schema) != 2 or not pa.types.is_fixed_size_list(kind):
        raise BulkConflict(f"npy must have one vector output; got {', '.join(schema.names[1:])}")
    return np.dtype(kind.value_type.to_pandas_dtype()), int(kind.list_size)


def merge(format_: OutputFormat, shards: Sequence[Path], schema: pa.Schema, rows: int, stream: BinaryIO) -> None:
    """Joins shards into one file; `rows` counts rejected rows too."""
    if format_ == "npy":
        dtype, width = vector_type(schema)
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(stream, header)
        for shard in shards:
            with shard.open("rb") as source:
                shutil.copyfileobj(source, stream, _COPY_BYTES)
        return
    with opened(format_, stream, schema) as sink:
        for shard in shards:
            for batch in _batches(format_, shard):
                sink.write(batch, (), 0)


def _batches(format_: OutputFormat, shard: Path) -> Iterator[pa.RecordBatch]:
    """Yields the windows of a shard."""
    if format_ == "parquet":
        with pq.ParquetFile(shard, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, use_threads=False).combine_chunks().to_batches()
        return
    with pa.memory_map(str(shard)) as source:
        reader = pa.ipc.open_file(source)
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)


def _parquet_writer(stream: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    texts = [field.name for field in schema if not pa.types.is_nested(field.type)]
    return pq.ParquetWriter(stream, schema, compression="zstd", use_dictionary=texts, write_statistics=texts)
