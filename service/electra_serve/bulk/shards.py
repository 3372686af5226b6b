"""State of a run on disk: finished shards, and the manifest that decides if a run may continue.

    OUTPUT.partial/
      manifest.json        model, options, input and cost table of the first start
      shards/part-00000…   rows of each shard
      records/00000.json   written last: its shard is whole
      rejects/00000.jsonl  rejected rows of each shard

The output appears under its own name at the end of the run, by a rename. Next to it are its manifest and, if rows were
rejected, their reasons.
"""

from __future__ import annotations

import json
import os
import shutil
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import filelock
import orjson
import pyarrow as pa

from electra_serve.batching.cost_model import CostTable
from electra_serve.bulk.inputs import ENDINGS, OUTPUT_ENDINGS, describe, reading
from electra_serve.bulk.reading import Position
from electra_serve.bulk.sinks import OutputFormat, Sink, merge, new_file, opened, sync_folder, writing
from electra_serve.engine.profiling import Timings
from electra_serve.errors import BulkConflict, BulkError
from electra_serve.tensors import BatchShape

VERSION: Final = 1  # of the layout
_MANIFEST: Final = "manifest.json"
_ENDINGS: Final[Mapping[OutputFormat, str]] = {"parquet": ".parquet", "arrow": ".arrow", "npy": ".bin"}
_BY_NAME: Final[Mapping[str, OutputFormat]] = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".npy": "npy",
}
_OTHER_ENDINGS: Final = frozenset({*ENDINGS, ".gz", ".zst", ".json", ".npz", ".pq"} - set(_BY_NAME))
"""Names of files of other formats, which would be surprising names of folders."""
_IDENTITY: Final = ("version", "model", "engine", "options", "columns", "limits", "output", "shard", "input")
"""Parts of a manifest that must not change."""

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """A finished shard."""

    rows: int  # of the input, rejected ones included
    rejected: int
    tokens: int
    end_file: int  # position after the last row
    end_row: int
    size: int  # bytes of its file
    id_type: str  # of the id column, serialized


@dataclass(frozen=True, slots=True)
class Rejected:
    """A rejected row."""

    row: int
    id: object
    file: str
    reason: str


class OutputPaths:
    """Names of the output and of the files next to it."""

    def __init__(self, output: Path, format_: OutputFormat | None = None) -> None:
        ending = output.suffix.lower()
        by_name = _BY_NAME.get(ending)
        if not output.name or (by_name is None and ending in _OTHER_ENDINGS):
            raise BulkConflict(
                f"the output must end with {', '.join(_BY_NAME)}, or have the name of a new folder; got {output}"
            )
        if by_name is not None and format_ not in {None, by_name}:
            raise BulkConflict(f"the output must be {by_name}, as its name says; got {format_}")
        self.output = output
        self.format: OutputFormat = by_name or format_ or "parquet"
        self.is_folder = by_name is None
        if self.is_folder and self.format == "npy":
            raise BulkConflict(f"the output must be a file whose name ends with .npy; got {output}")
        self.partial, self.manifest, self.rejects = (
            output.with_name(f"{output.name}{ending}") for ending in OUTPUT_ENDINGS[1:]
        )
        self.records = self.partial / "records"
        self.shards = self.partial / "shards"
        self.rejected = self.partial / "rejects"

    def shard(self, index: int) -> Path:
        """Returns the file of a shard."""
        return self.shards / f"part-{index:05}{_ENDINGS[self.format]}"

    @property
    def layout(self) -> dict[str, object]:
        """Form of the output, as JSON values."""
        return {"format": self.format, "folder": self.is_folder}


class ShardStore:
    """Shards of a run; only one process writes them."""

    def __init__(self, paths: OutputPaths) -> None:
        self.paths = paths
        self.manifest: Manifest = {}
        self.records: list[ShardRecord] = []

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the folder and excludes other processes; raises `BulkError`."""
        with writing(self.paths.partial):
            for folder in (self.paths.records, self.paths.shards, self.paths.rejected):
                folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.paths.partial / "lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise BulkError(f"cannot write {self.paths.output}: another process writes it") from error
        except (OSError, NotImplementedError) as error:  # of another user, or on a file system without locks
            raise BulkError(f"cannot lock {lock.lock_file}: {describe(error)}") from error
        try:
            yield
        finally:
            lock.release()

    def open(self, manifest: Manifest, *, restart: bool = False) -> None:
        """Continues an earlier run with the same manifest, or starts one; the earlier cost table is kept.

        An earlier run without a finished shard is no obstacle to another manifest.

        Args:
            manifest: Of this start.
            restart: Drops an earlier run, since its input cannot be read again.

        Raises:
            BulkConflict: The earlier run had another model, input or option.
        """
        path = self.paths.partial / _MANIFEST
        earlier = read_manifest(path)
        if earlier is None or restart or (not self._record(0).exists() and first_change(earlier, manifest)):
            self._clear()
            self.manifest = manifest
            write_json(path, manifest)
            return
        require_same(earlier, manifest, self.paths)
        self.manifest = earlier
        self.records = list(self._read_records())
        self._remove_unfinished()

    @property
    def rows(self) -> int:
        """Rows of the finished shards."""
        return sum(record.rows for record in self.records)

    @property
    def rejected(self) -> int:
        """Rejected rows of the finished shards."""
        return sum(record.rejected for record in self.records)

    @property
    def tokens(self) -> int:
        """Tokens of the finished shards."""
        return sum(record.tokens for record in self.records)

    @property
    def end(self) -> Position:
        """Position after the finished shards."""
        return Position(self.records[-1].end_file, self.records[-1].end_row) if self.records else Position()

    @property
    def timings(self) -> Timings:
        """Seconds of each batch shape at the first start."""
        return {BatchShape(rows, length): seconds for rows, length, seconds in self.manifest["costs"]}

    @property
    def id_type(self) -> pa.DataType | None:
        """Type of the id column; None before the first shard."""
        if not self.records:
            return None
        schema = pa.ipc.read_schema(pa.py_buffer(b64decode(self.records[0].id_type)))
        return schema.field(0).type

    @contextmanager
    def new_shard(self, schema: pa.Schema) -> Iterator[Sink]:
        """Writes the next shard; it is whole when the context ends, but counts only with its record."""
        with new_file(self.paths.shard(len(self.records))) as stream, opened(self.paths.format, stream, schema) as sink:
            yield sink

    def add(self, *, rows: int, tokens: int, end: Position, rejected: Sequence[Rejected], id_type: pa.DataType) -> None:
        """Records the shard that was written last."""
        index = len(self.records)
        if rejected:
            with new_file(self.paths.rejected / f"{index:05}.jsonl") as stream:
                stream.writelines(
                    orjson.dumps(asdict(row), default=str, option=orjson.OPT_APPEND_NEWLINE) for row in rejected
                )
        size = self.paths.shard(index).stat().st_size
        id_field = b64encode(pa.schema([("id", id_type)]).serialize()).decode()
        record = ShardRecord(rows, len(rejected), tokens, end.file, end.row, size, id_field)
        write_json(self._record(index), asdict(record))
        self.records.append(record)

    def publish(self, schema: pa.Schema) -> None:
        """Makes the output appear, after its manifest and the rejected rows; raises `BulkError`."""
        paths, count = self.paths, len(self.records)
        merged = paths.shards
        if not paths.is_folder:
            merged = paths.partial / f"whole{_ENDINGS[paths.format]}"
            with new_file(merged) as stream:
                merge(paths.format, [paths.shard(index) for index in range(count)], schema, self.rows, stream)
        elif not count:
            with self.new_shard(schema):
                pass
        self._publish_rejected()
        totals = {"rows": self.rows, "rejected": self.rejected, "tokens": self.tokens, "shards": count}
        write_json(paths.manifest, {**self.manifest, **totals})
        with writing(paths.output):
            merged.replace(paths.output)
            sync_folder(paths.output.parent)
        self.discard()

    def discard(self) -> None:
        """Removes the folder of the run."""
        shutil.rmtree(self.paths.partial, ignore_errors=True)

    def _publish_rejected(self) -> None:
        files = sorted(self.paths.rejected.glob("*.jsonl"))
        with writing(self.paths.rejects):
            self.paths.rejects.unlink(missing_ok=True)
        if files:
            with new_file(self.paths.rejects) as stream:
                for file in files:
                    stream.write(file.read_bytes())

    def _record(self, index: int) -> Path:
        return self.paths.records / f"{index:05}.json"

    def _read_records(self) -> Iterator[ShardRecord]:
        index = 0
        while (content := read_manifest(self._record(index))) is not None:
            record = ShardRecord(**content)
            path = self.paths.shard(index)
            if not path.is_file() or path.stat().st_size != record.size:
                raise BulkConflict(
                    f"cannot continue {self.paths.output}: {path} is not as it was written; delete {self.paths.partial}"
                )
            yield record
            index += 1

    def _remove_unfinished(self) -> None:
        kept = {self.paths.shard(index).stem for index in range(len(self.records))}
        kept |= {f"{index:05}" for index in range(len(self.records))}
        with writing(self.paths.partial):
            for folder in (self.paths.records, self.paths.shards, self.paths.rejected):
                for file in folder.iterdir():
                    if file.stem not in kept or file.suffix == ".tmp":
                        file.unlink()

    def _clear(self) -> None:
        with writing(self.paths.partial):
            (self.paths.partial / _MANIFEST).unlink(missing_ok=True)
        self.records = []
        self._remove_unfinished()


def make_manifest(
    description: Mapping[str, object],
    costs: Timings,
    columns: Mapping[str, object],
    output: Mapping[str, object],
    files: Sequence[Mapping[str, object]],
) -> Manifest:
    """Makes the manifest of a run."""
    CostTable(costs)  # checks it
    return {
        "version": VERSION,
        **description,
        "columns": dict(columns),
        "output": dict(output),
        "input": list(files),
        "costs": [[shape.rows, shape.length, seconds] for shape, seconds in sorted(costs.items())],
    }


def require_same(earlier: Manifest, manifest: Manifest, paths: OutputPaths) -> None:
    """Raises `BulkConflict` with the first part of the manifest that has changed."""
    change = first_change(earlier, manifest)
    if change is not None:
        raise BulkConflict(
            f"cannot continue {paths.output}: {change}; run the earlier command, or "
            f"delete {paths.partial if paths.partial.exists() else paths.output} to start again"
        )


def first_change(earlier: Manifest, manifest: Manifest) -> str | None:
    """Describes the first part of a manifest that has changed; None if it is of the same run."""
    for part in _IDENTITY:
        before, now = earlier.get(part), json.loads(json.dumps(manifest[part]))
        if before != now:
            return _first_change(part, before, now)
    return None


def _first_change(name: str, before: object, now: object) -> str:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in (*before, *now):
            if before.get(key) != now.get(key):
                return _first_change(f"{name}.{key}", before.get(key), now.get(key))
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            if old != new:
                return _first_change(f"{name}[{_name(old, new) or index}]", old, new)
    return f"{name} must be {_short(before)}, as at its start; got {_short(now)}"


def _name(before: object, now: object) -> object:
    """Returns the name of two items, such as files, that have the same."""
    if isinstance(before, Mapping) and isinstance(now, Mapping) and before.get("name") == now.get("name"):
        return before.get("name")
    return None


def _short(value: object) -> str:
    return f"{len(value)} items" if isinstance(value, list) else f"{json.dumps(value):.120}"


def read_manifest(path: Path) -> Manifest | None:
    """Reads a JSON object; None if there is no such file."""
    with reading(str(path)):
        try:
            content = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
    if not isinstance(content, dict):
        raise BulkError(f"cannot read {path}: it must be a JSON object")
    return content


def write_json(path: Path, content: object) -> None:
    """Writes a file of JSON at once; raises `BulkError`."""
    with new_file(path) as stream:
        stream.write(json.dumps(content, indent=1).encode() + b"\n")


def machine() -> dict[str, object]:
    """Describes what may change the last bits of numbers: processor and cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": _processor(), "cores": cores}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
