"""Runs: outputs of each format, resumes, rejected rows, faults and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from benchmarks.stand_in.answers import HIDDEN_DIM
from electra_serve.bulk import shards, sinks
from electra_serve.bulk.job import Interrupted, Signals
from electra_serve.bulk.options import Columns, EncodeOptions
from electra_serve.bulk.progress import Done
from electra_serve.bulk.windows import WindowLimits
from electra_serve.engine.factory import LoadedModel
from electra_serve.errors import BulkError
from electra_serve.settings.schema import BatchingSettings, EmbeddingSettings, LimitSettings, ModelSettings, Settings
from tests.unit.bulk.kills import digest
from tests.unit.bulk.support import SilentProgress, known_vector, load, run, texts, vectors, write_bytes, write_table

ROWS = texts(50)
MIXED = [None if row % 9 == 4 else text for row, text in enumerate(ROWS)]


class Stopped(BaseException):
    """Ends a run in the middle."""


class StopAfter(SilentProgress):
    """Ends a run after some windows."""

    def __init__(self, windows: int) -> None:
        super().__init__()
        self.windows = windows

    def update(self, done: Done) -> None:
        super().update(done)
        if len(self.states) == self.windows:
            raise Stopped


def files_next_to(output: Path) -> set[str]:
    return {path.name.removeprefix(output.name) for path in output.parent.iterdir()} - {"in.parquet", "in.jsonl"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_table(tmp_path / "in.parquet", {"text": MIXED, "id": [f"id-{row}" for row in range(50)]})


def test_parquet_has_row_numbers_and_vectors_in_order(source: Path, tmp_path: Path) -> None:
    summary = run(source, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    kept = [row for row, text in enumerate(MIXED) if text is not None]
    assert table.column_names == ["row", "embedding"]
    assert table["row"].to_pylist() == kept
    assert np.allclose(vectors(table), [known_vector(ROWS[row]) for row in kept], rtol=1e-6)
    assert (summary.rows, summary.rejected, summary.was_complete) == (50, 6, False)
    assert files_next_to(tmp_path / "out.parquet") == {"", ".manifest.json", ".rejects.jsonl"}


def test_rejected_rows_have_number_id_file_and_reason(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out.parquet", columns=Columns(id="id"))
    lines = (tmp_path / "out.parquet.rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == [4, 13, 22, 31, 40, 49]
    reason = "the value must not be null; got null"
    assert json.loads(lines[0]) == {"row": 4, "id": "id-4", "file": str(source), "reason": reason}


def test_arrow_has_the_ids_of_a_column(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out.arrow", columns=Columns(id="id"), options=EncodeOptions(("embedding", "cls_output")))
    with pa.memory_map(str(tmp_path / "out.arrow")) as stream:
        table = pa.ipc.open_file(stream).read_all()
    assert table.column_names == ["id", "embedding", "cls_output"]
    assert table["id"].to_pylist() == [f"id-{row}" for row, text in enumerate(MIXED) if text is not None]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 1e-3)])
def test_numpy_has_every_row_in_order_and_nan_for_rejected_ones(
    dtype: Any, tolerance: float, source: Path, tmp_path: Path
) -> None:
    run(source, tmp_path / "out.npy", options=EncodeOptions(dtype=dtype))
    array = np.load(tmp_path / "out.npy")
    assert (array.dtype, array.shape) == (np.dtype(dtype), (50, HIDDEN_DIM))
    for row, text in enumerate(MIXED):
        assert np.isnan(array[row]).all() if text is None else np.allclose(array[row], known_vector(text), tolerance)


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_a_folder_has_the_shards(format_: Any, source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", output_format=format_)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"part-{index:05}.{format_}" for index in range(4)]
    table = ds.dataset(tmp_path / "out", format="ipc" if format_ == "arrow" else "parquet").to_table()
    assert table["row"].to_pylist() == [row for row, text in enumerate(MIXED) if text is not None]


def test_several_files_are_one_input(tmp_path: Path) -> None:
    for number in range(3):
        write_table(tmp_path / f"{number}.jsonl", {"text": ROWS[number * 15 : number * 15 + 15]})
    run(tmp_path / "*.jsonl", tmp_path / "out.npy")
    assert np.allclose(np.load(tmp_path / "out.npy"), [known_vector(text) for text in ROWS[:45]], rtol=1e-6)


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow", "out.npy", "out"])
def test_an_input_without_rows_has_an_output_without_rows(name: str, tmp_path: Path) -> None:
    source = write_bytes(tmp_path / "in.jsonl", b"")
    assert run(source, tmp_path / name).rows == 0
    if name == "out.npy":
        assert np.load(tmp_path / name).shape == (0, HIDDEN_DIM)
    elif name != "out.arrow":
        assert pq.read_table(tmp_path / name).num_rows == 0


def test_an_input_of_bad_rows_only_has_an_output_without_rows(tmp_path: Path) -> None:
    source = write_bytes(tmp_path / "in.jsonl", b"{}\n" * 20)
    assert run(source, tmp_path / "out.parquet", options=EncodeOptions(("sequence_output",))).rejected == 20
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow", "out.npy", "out"])
@pytest.mark.parametrize("windows", range(1, 8))
def test_a_run_that_stopped_continues_to_the_same_bytes(name: str, windows: int, source: Path, tmp_path: Path) -> None:
    options = EncodeOptions(("mean_output",))
    (tmp_path / "whole").mkdir()
    run(source, tmp_path / "whole" / name, options=options)
    output = tmp_path / name
    with pytest.raises(Stopped):
        run(source, output, options=options, progress=StopAfter(windows))
    assert not output.exists()
    progress = SilentProgress()
    run(source, output, options=options, progress=progress)
    assert progress.states[0].rows_before == (windows - 1) // 2 * 16  # finished shards, of two windows each
    assert digest(output) == digest(tmp_path / "whole" / name)


@pytest.mark.parametrize("name", ["out.parquet", "out"])
def test_a_kill_before_any_step_on_disk_continues_to_the_same_files(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.unit.bulk.kills", str(tmp_path), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["faults"] == []
    assert found["steps"] >= 30


def test_a_continued_run_uses_the_first_cost_table(source: Path, tmp_path: Path) -> None:
    def slower(settings: ModelSettings, batching: BatchingSettings) -> LoadedModel:
        loaded = load(settings, batching)
        return replace(loaded, timings={shape: 2 * seconds for shape, seconds in loaded.timings.items()})

    with pytest.raises(Stopped):
        run(source, tmp_path / "out", progress=StopAfter(3))
    manifest = json.loads((tmp_path / "out.partial/manifest.json").read_text())
    run(source, tmp_path / "out", load=slower)
    assert json.loads((tmp_path / "out.manifest.json").read_text())["costs"] == manifest["costs"]


def stopped(source: Path, output: Path) -> None:
    with pytest.raises(Stopped):
        run(source, output, progress=StopAfter(3))


def rejects(message: str, source: Path, output: Path, **changes: Any) -> None:
    with pytest.raises(BulkError, match=message) as caught:
        run(source, output, **changes)
    assert "\n" not in str(caught.value)


CLS = ModelSettings(preset="electra_demo", embedding=EmbeddingSettings(pooling="cls"))


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": CLS}, 'model.pooling must be "mean", as at its start; got "cls"'),
        ({"options": EncodeOptions(dtype="float16")}, 'options.dtype must be "float32"'),
        ({"options": EncodeOptions(("cls_output",))}, r'options.outputs\[0\] must be "embedding"'),
        ({"columns": Columns(id="id")}, 'columns.id must be null, as at its start; got "id"'),
        ({"limits": WindowLimits(window_rows=8, shard_rows=32)}, "output.shard_rows must be 16"),
        ({"service": Settings(limits=LimitSettings(max_text_characters=9))}, "limits.max_text_characters"),
        ({"output_format": "arrow"}, 'output.format must be "parquet"'),
    ],
)
def test_a_changed_run_is_not_continued(
    complete: bool, changes: dict[str, Any], message: str, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    if complete:
        run(source, output)
    else:
        stopped(source, output)
    rejects(message, source, output, **changes)
    run(source, output)  # the earlier command still works


def test_another_revision_of_the_model_is_not_used(source: Path, tmp_path: Path) -> None:
    def another(settings: ModelSettings, batching: BatchingSettings) -> LoadedModel:
        loaded = load(settings, batching)
        return replace(loaded, preset=replace(loaded.preset, sha256="1" * 64))

    stopped(source, tmp_path / "out")
    rejects('model.sha256 must be ".*; got "1111', source, tmp_path / "out", load=another)


@pytest.mark.parametrize("change", ["content", "row added", "file added"])
def test_a_changed_input_is_not_continued(change: str, tmp_path: Path) -> None:
    first = write_table(tmp_path / "a.jsonl", {"text": ROWS})
    pattern, output = tmp_path / "*.jsonl", tmp_path / "out.npy"
    stopped(pattern, output)
    content = first.read_bytes()
    if change == "content":
        first.write_bytes(content.replace(b"number 49", b"number 94"))
        message = r"input\[a.jsonl\].sha256"
    elif change == "row added":
        first.write_bytes(content + b'{"text": "late"}\n')
        message = r"input\[a.jsonl\].size"
    else:
        write_table(tmp_path / "b.jsonl", {"text": ["late"]})
        message = "input must be 1 items, as at its start; got 2 items"
    rejects(f"cannot continue .*{message}.*run the earlier command, or delete", pattern, output)


def test_a_file_that_was_only_touched_is_the_same_input(source: Path, tmp_path: Path) -> None:
    stopped(source, tmp_path / "out.npy")
    os.utime(source, (1, 1))
    assert run(source, tmp_path / "out.npy").rows == 50


def test_a_complete_output_is_not_computed_again(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out.parquet")
    before = digest(tmp_path / "out.parquet")
    summary = run(source, tmp_path / "out.parquet", progress=StopAfter(1))
    assert (summary.was_complete, summary.rows, summary.rejected) == (True, 50, 6)
    assert digest(tmp_path / "out.parquet") == before


def test_a_file_that_is_no_output_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.parquet").write_bytes(b"precious")
    rejects("it exists, and is no output of encode", source, tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_bytes() == b"precious"


def test_a_shard_that_was_damaged_is_an_error(source: Path, tmp_path: Path) -> None:
    stopped(source, tmp_path / "out")
    shard = tmp_path / "out.partial/shards/part-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    rejects("is not as it was written; delete .*out.partial", source, tmp_path / "out")


def test_a_manifest_that_is_no_json_is_an_error(source: Path, tmp_path: Path) -> None:
    stopped(source, tmp_path / "out")
    for content in ("{", "[]"):
        (tmp_path / "out.partial/manifest.json").write_text(content)
        rejects("cannot read .*manifest.json", source, tmp_path / "out")


def test_two_processes_do_not_write_one_output(source: Path, tmp_path: Path) -> None:
    stopped(source, tmp_path / "out")
    with filelock.FileLock(tmp_path / "out.partial/lock"):
        rejects("another process writes it", source, tmp_path / "out")


def test_a_lock_that_cannot_be_taken_is_one_line(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.partial/lock").mkdir(parents=True)
    rejects("cannot lock .*/out.partial/lock: Is a directory", source, tmp_path / "out")


def test_an_output_that_another_process_has_finished_stays(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, locked = tmp_path / "out.parquet", shards.ShardStore.locked

    @contextmanager
    def after_another(store: shards.ShardStore) -> Iterator[None]:
        monkeypatch.undo()
        run(source, output)
        with locked(store):
            yield

    monkeypatch.setattr(shards.ShardStore, "locked", after_another)
    assert run(source, output).was_complete
    assert files_next_to(output) == {"", ".manifest.json", ".rejects.jsonl"}


@pytest.mark.parametrize(
    ("name", "options", "format_", "message"),
    [
        ("out.npy", ("embedding", "cls_output"), None, "npy must have one vector output; got embedding, cls_output"),
        ("out.npy", ("sequence_output",), None, "npy must have one vector output"),
        ("out.parquet", (), "arrow", "the output must be parquet, as its name says; got arrow"),
        ("out", (), "npy", "whose name ends with .npy"),
    ],
)
def test_formats_that_do_not_fit(
    name: str, options: Sequence[str], format_: Any, message: str, source: Path, tmp_path: Path
) -> None:
    rejects(message, source, tmp_path / name, options=EncodeOptions(options), output_format=format_)


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.npz", "out.parquet.gz", "OUT.TXT", ".", "/", ""])
def test_names_that_no_output_has(name: str, source: Path) -> None:
    rejects(r"the output must end with \.parquet, .* or have the name of a new folder", source, Path(name))


def test_an_ending_in_capitals_is_one(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "OUT.NPY")
    assert np.load(tmp_path / "OUT.NPY").shape == (50, HIDDEN_DIM)


def test_a_name_that_is_too_long_is_one_line(source: Path, tmp_path: Path) -> None:
    for length in (240, 260):
        rejects("File name too long$", source, tmp_path / ("n" * length + ".parquet"))


@pytest.mark.parametrize("name", ["out.jsonl.d", "out.arrow"])
def test_a_pattern_does_not_name_the_output(name: str, tmp_path: Path) -> None:
    write_table(tmp_path / "in.jsonl", {"text": MIXED})
    output, pattern = tmp_path / name, tmp_path / "**/*"
    stopped(pattern, output)
    assert run(pattern, output).rows == 50
    assert files_next_to(output) == {"", ".manifest.json", ".rejects.jsonl"}
    assert run(pattern, output).was_complete


def test_a_run_without_a_finished_shard_does_not_block_another(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    rejects("must have a column txt", source, output, columns=Columns("txt"))
    rejects("npy must have one vector output", source, output, options=EncodeOptions(("sequence_output",)))
    assert run(source, output).rows == 50
    manifest = json.loads((tmp_path / "out.npy.manifest.json").read_text())
    assert (manifest["columns"]["text"], manifest["options"]["outputs"]) == ("text", ["embedding"])


@pytest.mark.parametrize("kind", [pa.month_day_nano_interval(), pa.timestamp("s")], ids=str)
def test_ids_that_parquet_does_not_store_are_one_line(kind: pa.DataType, tmp_path: Path) -> None:
    value = (1, 2, 3) if kind == pa.month_day_nano_interval() else 2**62
    source = write_table(tmp_path / "in.arrow", {"text": ["a", None], "id": pa.array([value, value], kind)})
    rejects("column id has ids that cannot be stored: ", source, tmp_path / "out.parquet", columns=Columns(id="id"))
    assert run(source, tmp_path / "out.arrow", columns=Columns(id="id")).rejected == 1


def test_the_id_column_is_no_output(tmp_path: Path) -> None:
    source = write_table(tmp_path / "in.jsonl", {"text": ["a"], "embedding": [1]})
    rejects(
        "the id column must not have the name of an output", source, tmp_path / "o", columns=Columns(id="embedding")
    )


def test_strict_stops_at_the_first_bad_row(source: Path, tmp_path: Path) -> None:
    rejects("row 4 of .*in.parquet was rejected: the value must not be null", source, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()


def test_strict_does_not_continue_a_run_with_rejected_rows(source: Path, tmp_path: Path) -> None:
    stopped(source, tmp_path / "out")
    rejects("1 rows were rejected by the earlier run|2 rows were", source, tmp_path / "out", strict=True)


def test_a_file_that_changes_during_the_run_stops_it(tmp_path: Path) -> None:
    source = write_table(tmp_path / "in.jsonl", {"text": ROWS})

    class Touching(SilentProgress):
        def update(self, done: Done) -> None:
            os.utime(source, (1, 1))

    rejects(
        "it changed while it was read; 0 of .* and the same command continues",
        *(source, tmp_path / "out"),
        progress=Touching(),
    )
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("out.partial/records/*"))  # its rows may be those of the changed file


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow", "out.npy", "out"])
@pytest.mark.parametrize("room", [0, 500, 5000, 15_000])
def test_a_full_disk_is_one_line_and_the_run_continues(
    name: str, room: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    run(source, tmp_path / "whole" / name)
    with monkeypatch.context() as patch:
        patch.setattr(sinks, "_open", FullDisk(room).open)
        rejects("cannot write .*: No space left on device; .* and the same command continues", source, tmp_path / name)
    assert not (tmp_path / name).exists()
    run(source, tmp_path / name)
    assert digest(tmp_path / name) == digest(tmp_path / "whole" / name)


class FullDisk:
    """Opens files that have room for some bytes together, manifests and records apart."""

    def __init__(self, room: int) -> None:
        self.room = room

    def open(self, path: Path) -> Any:
        stream = path.open("wb")
        if ".json" in path.name:
            return stream
        return _Full(stream, self)


class _Full:
    def __init__(self, stream: Any, disk: FullDisk) -> None:
        self._stream = stream
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if size > self._disk.room:
            raise OSError(28, "No space left on device")
        self._disk.room -= size
        written: int = self._stream.write(data)
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)


def test_a_folder_that_cannot_be_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    rejects("cannot write .*: Not a directory", source, tmp_path / "file/out.parquet")


class Signaling(SilentProgress):
    """Sends a signal to this process after some windows."""

    def __init__(self, number: signal.Signals, windows: int) -> None:
        super().__init__()
        self.number, self.windows = number, windows

    def update(self, done: Done) -> None:
        super().update(done)
        if len(self.states) == self.windows:
            signal.raise_signal(self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_hint(number: signal.Signals, source: Path, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    with pytest.raises(
        Interrupted, match=r"^interrupted; 16 of 50 rows are done, and the same command continues"
    ) as end:
        run(source, tmp_path / "out.npy", progress=Signaling(number, 3))
    assert end.value.number == number
    assert signal.getsignal(number) is before
    left = {path.name for path in (tmp_path / "out.npy.partial/shards").iterdir()}
    assert left == {"part-00000.bin"}
    assert run(source, tmp_path / "out.npy").rows == 50


def test_signals_are_noted_for_the_length_of_a_run() -> None:
    signals = Signals()
    with signals.caught():
        assert signals.number is None
        signal.raise_signal(signal.SIGTERM)
    assert signals.number == signal.SIGTERM


def test_another_machine_is_a_warning(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(source, tmp_path / "out")
    monkeypatch.setattr(shards, "_processor", lambda: "another")
    with capture_logs() as logs:
        run(source, tmp_path / "out")
    assert [entry["event"] for entry in logs] == ["model loaded", "machine differs", "run continued"]


def test_random_weights_are_a_warning(source: Path, tmp_path: Path) -> None:
    def random(settings: ModelSettings, batching: BatchingSettings) -> LoadedModel:
        loaded = load(settings, batching)
        return replace(loaded, preset=replace(loaded.preset, weights="random"))

    with capture_logs() as logs:
        run(source, tmp_path / "out", load=random)
    assert [entry["event"] for entry in logs] == ["model loaded", "random weights used"]
