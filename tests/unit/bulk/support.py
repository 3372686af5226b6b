"""A model on stand-in engines, files of rows, and runs on them."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import structlog

from benchmarks.stand_in.answers import known_answer
from benchmarks.stand_in.script import Script
from benchmarks.stand_in.service import stand_in_model
from electra_serve.bulk.encoder import Encoder
from electra_serve.bulk.inputs import find_inputs
from electra_serve.bulk.job import Job, Summary, run_job
from electra_serve.bulk.options import Columns, EncodeOptions
from electra_serve.bulk.progress import Done
from electra_serve.bulk.reading import START, Position, Reader
from electra_serve.bulk.values import Value
from electra_serve.bulk.windows import WindowLimits
from electra_serve.engine.factory import LoadedModel
from electra_serve.presets.sentence_transformers import EmbeddingConfig
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.tokenizers.loader import load_tokenizer
from electra_serve.settings.schema import BatchingSettings, ModelSettings, Settings
from electra_serve.tensors import Float32Array, Output

SCRIPT = Script(batch_s=0, position_s=0)
SMALL = WindowLimits(window_rows=8, shard_rows=16)
"""Many windows and shards of few rows."""
PRESET = replace(resolve_preset("electra_demo"), embedding=EmbeddingConfig())
TOKENIZER = load_tokenizer(PRESET)


def load(settings: ModelSettings, batching: BatchingSettings) -> LoadedModel:
    """Loads `electra_demo` on engines that compute nothing."""
    return stand_in_model(SCRIPT, PRESET, TOKENIZER, batching, engines=2)


def make_encoder(columns: Columns | None = None, options: EncodeOptions | None = None) -> Encoder:
    return Encoder.load("electra_demo", columns or Columns(), options or EncodeOptions(), load=load)


def texts(count: int) -> list[str]:
    """Different texts of different lengths, out of order."""
    return [f"text number {index}" + " and more words" * (index * 7 % 23) for index in range(count)]


def known_vector(text: str, output: Output = Output.MEAN) -> Float32Array:
    """The output of the stand-in engine; the embedding is not normalized."""
    assert hasattr(TOKENIZER, "encode")
    [ids] = TOKENIZER.encode([text], max_length=512).token_ids
    return known_answer(Output.MEAN if output is Output.EMBEDDING else output, [int(id_) for id_ in ids])


class SilentProgress:
    """Keeps the states."""

    def __init__(self) -> None:
        self.states: list[Done] = []

    def update(self, done: Done) -> None:
        self.states.append(done)

    def close(self) -> None:
        pass


def run(input_: Path | str, output: Path, *, progress: SilentProgress | None = None, **changes: Any) -> Summary:
    """Runs a job on the stand-in."""
    shown = progress or SilentProgress()
    arguments = {"limits": SMALL, "model": ModelSettings(preset="electra_demo"), "service": Settings(), **changes}
    load_model = arguments.pop("load", load)
    log = arguments.pop("log", structlog.get_logger())
    return run_job(Job(input=str(input_), output=output, **arguments), log, lambda _: shown, load=load_model)


def read(path: Path | str, columns: Columns | None = None, start: Position = START) -> list[Value]:
    """All values of an input."""
    reader = Reader(find_inputs(str(path)), columns or Columns())
    return [value for _, chunk in reader.read(start) for value in chunk.values]


def read_ids(path: Path | str, columns: Columns) -> list[object]:
    """All ids of an input."""
    reader = Reader(find_inputs(str(path)), columns)
    return [id_ for _, chunk in reader.read() for id_ in (chunk.ids.to_pylist() if chunk.ids is not None else [])]


def write_table(path: Path, columns: dict[str, Sequence[Any]], row_group: int = 1000) -> Path:
    """Writes columns in the format that the path names."""
    table = pa.table(columns)
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    stream = io.BytesIO()
    if name.endswith(".parquet"):
        pq.write_table(table, stream, row_group_size=row_group)
    elif name.endswith(".arrow"):
        with pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table, max_chunksize=row_group)
    elif name.endswith(".arrows"):
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table, max_chunksize=row_group)
    elif name.endswith((".csv", ".tsv")):
        pc.write_csv(table, stream, pc.WriteOptions(delimiter="\t" if name.endswith(".tsv") else ","))
    elif name.endswith(".jsonl"):
        stream.writelines(json.dumps(row).encode() + b"\n" for row in table.to_pylist())
    else:
        stream.writelines(text.encode() + b"\n" for text in columns["text"])
    return write_bytes(path, stream.getvalue())


def write_bytes(path: Path, content: bytes) -> Path:
    """Writes bytes, compressed as the path says."""
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = pa.Codec("zstd").compress(content, asbytes=True)
    path.write_bytes(content)
    return path


def vectors(table: pa.Table, name: str = "embedding") -> Float32Array:
    """A column of vectors as (N, H)."""
    column = table[name].combine_chunks()
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(len(column), -1)
