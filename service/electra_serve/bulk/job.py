"""One run of `electra-serve encode`: finds the input, continues or starts the output, and publishes it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

import pyarrow as pa
import structlog

from electra_serve.bulk.encoder import ROW, Encoded, Encoder
from electra_serve.bulk.inputs import Format, identities
from electra_serve.bulk.options import DEFAULT_COLUMNS, DEFAULT_OPTIONS, Columns, EncodeOptions, InputShard
from electra_serve.bulk.parts import InputPart, find_part
from electra_serve.bulk.pipeline import Pipeline
from electra_serve.bulk.progress import Done, Progress
from electra_serve.bulk.reading import Reader
from electra_serve.bulk.shards import (
    Manifest,
    OutputPaths,
    Rejected,
    ShardStore,
    machine,
    make_manifest,
    read_manifest,
    require_same,
)
from electra_serve.bulk.sinks import OutputFormat, Sink, vector_type, writing
from electra_serve.bulk.values import plain_id
from electra_serve.bulk.windows import DEFAULT_LIMITS, Window, WindowLimits
from electra_serve.errors import BulkConflict, BulkError
from electra_serve.serving.loader import ModelLoader
from electra_serve.settings.schema import ModelSettings, Settings

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Job:
    """Arguments of a run."""

    input: str  # path, pattern, or `-`
    output: Path
    model: ModelSettings
    service: Settings
    columns: Columns = DEFAULT_COLUMNS
    options: EncodeOptions = DEFAULT_OPTIONS
    input_format: Format | None = None  # default: by the names
    output_format: OutputFormat | None = None  # default: by the name, else Parquet
    strict: bool = False  # stop at the first bad row
    limits: WindowLimits = DEFAULT_LIMITS
    shard: InputShard | None = None  # None for the whole input


@dataclass(frozen=True, slots=True)
class Summary:
    """Result of a run."""

    rows: int
    rejected: int
    tokens: int
    paths: OutputPaths
    was_complete: bool = False  # by an earlier run


class Interrupted(Exception):
    """A signal ended a run; the message says how to continue."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


@dataclass(slots=True)
class Signals:
    """The signal that ended a run, if one did."""

    number: int | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Records SIGINT and SIGTERM instead of ending the process; main thread only."""

        def note(number: int, _: FrameType | None) -> None:
            self.number = number

        before = {number: signal.signal(number, note) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_job(
    job: Job,
    log: structlog.typing.FilteringBoundLogger,
    make_progress: Callable[[int], Progress],
    *,
    load: ModelLoader | None = None,
) -> Summary:
    """Encodes the input into the output, or the rest of it after an earlier run.

    Args:
        job: Arguments.
        log: Logs start and warnings.
        make_progress: Makes the display, given the rows of earlier runs.
        load: Loads the model; default: with the engine that its settings name.

    Raises:
        StartupError: A file, the model or an option is at fault; the message is one line.
        Interrupted: A signal ended the run.
    """
    paths = OutputPaths(job.output, job.output_format)
    with writing(paths.output):  # a name that is too long
        exists = paths.output.exists() or paths.output.is_symlink()
        if exists and not paths.manifest.exists():
            raise BulkConflict(f"cannot write {paths.output}: it exists, and is no output of encode")
    part = find_part(job.input, job.input_format, job.shard, job.output)
    if part.first_row is None and job.columns.id is None and paths.format != "npy":
        raise BulkConflict(
            "shards of CSV, JSONL, text and compressed files need an id column: their row numbers are unknown"
        )
    with Encoder.load(job.model, job.columns, job.options, job.service, load=load) as encoder:
        signature = encoder.loaded.engines[0].signature
        log.info("model loaded", engine=signature.engine, device=signature.device, dtype=signature.dtype)
        manifest = _manifest(job, encoder, part, paths)
        if paths.output.exists():
            return _complete(paths, manifest)
        store = ShardStore(paths)
        with store.locked():
            if paths.output.exists():  # another process has finished it meanwhile
                return _complete(paths, manifest)
            store.open(manifest, restart=part.files[0].is_stdin)
            if job.strict and store.rejected:
                raise BulkConflict(f"{store.rejected} rows were rejected by the earlier run, see {paths.rejected}")
            _warn(store.manifest, log)
            encoder.use_timings(store.timings)
            return _Run(job, encoder, store, part, log, make_progress).run()


def _manifest(job: Job, encoder: Encoder, part: InputPart, paths: OutputPaths) -> Manifest:
    manifest = make_manifest(
        encoder.describe(),
        encoder.loaded.timings,
        asdict(job.columns),
        {**paths.layout, **asdict(job.limits)},
        identities(part.files),
    )
    return {**manifest, "shard": part.description, "machine": machine()}


def _complete(paths: OutputPaths, manifest: Manifest) -> Summary:
    """Returns the result of an earlier run; raises `BulkError` if it was another."""
    earlier = read_manifest(paths.manifest) or {}
    require_same(earlier, manifest, paths)
    ShardStore(paths).discard()  # a run that was killed right after its last rename
    return Summary(earlier["rows"], earlier["rejected"], earlier["tokens"], paths, was_complete=True)


def _warn(manifest: Manifest, log: structlog.typing.FilteringBoundLogger) -> None:
    now = machine()
    if manifest["machine"] != now:
        log.warning("machine differs", before=manifest["machine"], now=now, effect="last bits of numbers may differ")
    if manifest["model"]["weights"] == "random":
        log.warning("random weights used", model=manifest["model"]["preset"])


@dataclass(slots=True)
class _Shard:
    """Counts of the shard that is being written."""

    rows: int = 0
    tokens: int = 0
    rejected: list[Rejected] = field(default_factory=list)


class _Run:
    """Writes shards until the input ends."""

    def __init__(
        self,
        job: Job,
        encoder: Encoder,
        store: ShardStore,
        part: InputPart,
        log: structlog.typing.FilteringBoundLogger,
        make_progress: Callable[[int], Progress],
    ) -> None:
        self._job = job
        self._encoder = encoder
        self._store = store
        self._log = log
        self._rows_before = store.rows
        self._reader = Reader(part.files, job.columns, store.id_type)
        self._first_row = part.first_row or 0
        self._progress = make_progress(store.rows)
        self._total_rows = self._reader.count_rows()
        self._signals = Signals()
        self._done = Done(store.rows, 0, store.rejected, self._total_rows, store.rows)

    def run(self) -> Summary:
        """Encodes the rest of the input, and publishes the output."""
        store = self._store
        if store.rows:
            self._log.info("run continued", rows=store.rows, shards=len(store.records))
        with self._signals.caught():
            try:
                self._write_shards()
                self._raise_if_stopped()
                store.publish(self._schema())
            except BulkConflict:
                raise
            except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
                raise BulkConflict(f"column {self._job.columns.id} has ids that cannot be stored: {error}") from error
            except BulkError as error:
                raise BulkError(f"{error}{self._hint()}") from error
            finally:
                self._progress.close()
        return Summary(store.rows, store.rejected, store.tokens, store.paths)

    def _write_shards(self) -> None:
        pipeline = Pipeline(self._encoder, self._reader, self._job.limits)
        windows = pipeline.run(self._store.end, self._store.rows)
        try:
            first = self._next(windows)
            while first is not None:
                first = self._write_shard(first, windows)
        finally:
            windows.close()  # type: ignore[attr-defined]  # a generator

    def _write_shard(
        self, item: tuple[Window, Encoded], windows: Iterator[tuple[Window, Encoded] | None]
    ) -> tuple[Window, Encoded] | None:
        """Writes a shard, beginning with a window; returns the first one of the next shard."""
        shard = _Shard()
        schema = self._schema()
        with self._store.new_shard(schema) as sink:
            self._write(sink, schema, shard, *item)
            while not item[0].ends_shard:
                following = self._next(windows)
                if following is None:
                    raise RuntimeError("the last window must end its shard")
                item = following
                self._write(sink, schema, shard, *item)
        window = item[0]
        for file in self._reader.files[self._store.end.file : window.end.file + 1]:
            file.check_unchanged()
        self._store.add(
            rows=shard.rows,
            tokens=shard.tokens,
            end=window.end,
            rejected=shard.rejected,
            id_type=self._reader.id_type,
        )
        return self._next(windows)

    def _next(self, windows: Iterator[tuple[Window, Encoded] | None]) -> tuple[Window, Encoded] | None:
        """Returns the next window; None after the last one. Raises `Interrupted` after a signal."""
        for item in windows:
            self._raise_if_stopped()
            if item is not None:
                return item
        return None

    def _write(self, sink: Sink, schema: pa.Schema, shard: _Shard, window: Window, encoded: Encoded) -> None:
        first_row = self._first_row + window.first_row
        numbers = range(first_row, first_row + len(window.rows))
        ids = window.ids if self._job.columns.id is not None else pa.array(numbers, pa.int64())
        if ids is None:
            ids = pa.array([], self._reader.id_type)
        shard.rejected += self._rejected(window, encoded, ids)
        batch = pa.record_batch([ids.take(pa.array(encoded.kept, pa.int64())), *encoded.arrays], schema=schema)
        sink.write(batch, encoded.kept, len(window.rows))
        shard.rows += len(window.rows)
        shard.tokens += encoded.tokens
        done = self._done
        self._done = Done(
            done.rows + len(window.rows),
            done.tokens + encoded.tokens,
            done.rejected + len(encoded.rejected),
            self._total_rows or self._reader.estimated_rows,
            self._rows_before,
        )
        self._progress.update(self._done)

    def _rejected(self, window: Window, encoded: Encoded, ids: pa.Array) -> list[Rejected]:
        files = self._reader.files
        rejected = []
        for index, reason in encoded.rejected:
            file = files[window.files.get(index, window.end.file)].path
            number = self._first_row + window.first_row + index
            if self._job.strict:
                raise BulkConflict(f"row {number} of {file} was rejected: {reason}")
            identifier = plain_id(ids, index) if self._job.columns.id is not None else number
            rejected.append(Rejected(number, identifier, file, reason))
        return rejected

    def _schema(self) -> pa.Schema:
        id_ = pa.field(self._job.columns.id or ROW, self._reader.id_type)
        outputs = self._encoder.outputs.fields
        if id_.name in {output.name for output in outputs}:
            raise BulkConflict(f"the id column must not have the name of an output; got {id_.name}")
        schema = pa.schema([id_, *outputs])
        if self._store.paths.format == "npy":
            vector_type(schema)
        return schema

    def _raise_if_stopped(self) -> None:
        if self._signals.number is not None:
            raise Interrupted(f"interrupted{self._hint()}", self._signals.number)

    def _hint(self) -> str:
        total = self._done.total_rows
        of = f" of {total:,}" if total is not None else ""
        done = f"; {self._store.rows:,}{of} rows are done"
        if self._reader.files[0].is_stdin:
            return f"{done}, but standard input cannot be continued"
        return f"{done}, and the same command continues"
