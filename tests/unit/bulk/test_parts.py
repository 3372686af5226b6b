"""Shards of an input: each file in one of them, row numbers of the whole, and resumption."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from electra_serve.bulk.options import Columns, InputShard
from electra_serve.bulk.parts import find_part
from electra_serve.cli.main import main
from electra_serve.errors import BulkConflict, BulkError
from tests.unit.bulk.support import load, run, texts, write_bytes, write_table

ROWS = texts(60)
MIXED = [None if row % 9 == 4 else text for row, text in enumerate(ROWS)]


def write_files(folder: Path, ending: str, count: int = 5) -> str:
    """Writes the rows into files of different lengths, and returns their pattern."""
    folder.mkdir(exist_ok=True)
    ends = [0, *(60 * (number + 1) ** 2 // count**2 for number in range(count))]
    for number, (start, end) in enumerate(pairwise(ends)):
        columns: dict[str, Any] = {"text": MIXED[start:end], "id": [f"id-{row}" for row in range(start, end)]}
        write_table(folder / f"{number}{ending}", columns)
    return str(folder / f"*{ending}")


def run_shards(pattern: str, folder: Path, count: int, name: str = "out.parquet", **changes: Any) -> list[Path]:
    outputs = [folder / f"{index}-{name}" for index in range(count)]
    for index, output in enumerate(outputs):
        run(pattern, output, shard=InputShard(index, count), **changes)
    return outputs


@pytest.mark.parametrize("files", [1, 2, 3, 7, 100])
def test_each_file_is_in_one_shard_and_none_is_empty(files: int) -> None:
    for count in range(1, files + 1):
        chosen = [InputShard(index, count).choose(files) for index in range(count)]
        assert [file for part in chosen for file in part] == list(range(files))
        assert {len(part) for part in chosen} <= {files // count, -(-files // count)}


@pytest.mark.parametrize("text", ["", "1", "3/3", "0/0", "-1/3", "1/-3", "1/3/5", "a/b", "1.0/3", "٠/٣", "0/3\n"])
def test_other_texts_are_no_shard(text: str) -> None:
    with pytest.raises(BulkError, match="must be INDEX/COUNT, and INDEX from 0 and below COUNT; got"):
        InputShard.parse(text)


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_row_numbers_are_those_of_the_whole_input(ending: str, count: int, tmp_path: Path) -> None:
    pattern = write_files(tmp_path / "in", ending)
    run(pattern, tmp_path / "whole.parquet")
    shards = run_shards(pattern, tmp_path, count)
    assert pa.concat_tables(map(pq.read_table, shards)) == pq.read_table(tmp_path / "whole.parquet")
    rejects = [json.loads(line) for path in shards for line in rejected(path)]
    assert rejects == [json.loads(line) for line in rejected(tmp_path / "whole.parquet")]


def rejected(output: Path) -> list[str]:
    path = output.with_name(f"{output.name}.rejects.jsonl")
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet", ".jsonl.gz", ".arrows"])
def test_ids_are_those_of_the_input(ending: str, tmp_path: Path) -> None:
    pattern = write_files(tmp_path / "in", ending)
    run(pattern, tmp_path / "whole.parquet", columns=Columns(id="id"))
    shards = run_shards(pattern, tmp_path, 3, columns=Columns(id="id"))
    assert pa.concat_tables(map(pq.read_table, shards)) == pq.read_table(tmp_path / "whole.parquet")


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_arrays_of_shards_are_those_of_the_input(ending: str, tmp_path: Path) -> None:
    pattern = write_files(tmp_path / "in", ending)
    run(pattern, tmp_path / "whole.npy")
    shards = run_shards(pattern, tmp_path, 3, "out.npy")
    whole = np.load(tmp_path / "whole.npy")
    assert np.array_equal(np.concatenate([np.load(path) for path in shards]), whole, equal_nan=True)
    assert len(whole) == 60


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".txt", ".parquet.gz", ".arrows"])
def test_unknown_row_numbers_need_an_id_column(ending: str, tmp_path: Path) -> None:
    for number in range(2):
        write_bytes(tmp_path / f"{number}{'.arrow.gz' if ending == '.parquet.gz' else ending}", b"")
    with pytest.raises(BulkError, match="need an id column: their row numbers are unknown"):
        run(tmp_path / "*[a-z]", tmp_path / "out", shard=InputShard(1, 2))


def test_fewer_files_than_shards_are_an_error_of_each_shard(tmp_path: Path) -> None:
    pattern = write_files(tmp_path / "in", ".parquet", count=2)
    for index in range(3):
        with pytest.raises(BulkConflict, match="must have a file for each of 3 shards; got 2 files"):
            run(pattern, tmp_path / "out", shard=InputShard(index, 3))


def test_standard_input_has_no_shards() -> None:
    with pytest.raises(BulkError, match="standard input must be encoded by one process"):
        find_part("-", "jsonl", InputShard(0, 1))


def test_files_of_other_shards_are_not_read(tmp_path: Path) -> None:
    pattern = write_files(tmp_path / "in", ".jsonl", count=3)
    (tmp_path / "in/0.jsonl").write_bytes(b"\xff")
    part = find_part(pattern, None, InputShard(1, 3))
    assert [Path(file.path).name for file in part.files] == ["1.jsonl"]
    (tmp_path / "in/0.jsonl").unlink()
    (tmp_path / "in/0.jsonl").symlink_to("missing")
    assert find_part(pattern, None, InputShard(1, 3)).files == part.files


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        (None, "shard must be {.*}, as at its start; got null"),
        (InputShard(0, 3), "shard.index must be 1, as at its start; got 0"),
        (InputShard(1, 4), "shard.count must be 3, as at its start; got 4"),
    ],
)
def test_another_shard_does_not_continue_an_output(shard: InputShard | None, message: str, tmp_path: Path) -> None:
    pattern = write_files(tmp_path / "in", ".parquet")
    run(pattern, tmp_path / "out", shard=InputShard(1, 3))
    with pytest.raises(BulkConflict, match=message):
        run(pattern, tmp_path / "out", shard=shard)
    assert run(pattern, tmp_path / "out", shard=InputShard(1, 3)).was_complete


def test_a_file_that_was_added_to_another_shard_is_detected(tmp_path: Path) -> None:
    pattern = write_files(tmp_path / "in", ".parquet")
    run(pattern, tmp_path / "out", shard=InputShard(0, 2))
    write_table(tmp_path / "in/9.parquet", {"text": ["late"], "id": ["late"]})
    with pytest.raises(BulkConflict, match="must be 5, as at its start; got 6"):
        run(pattern, tmp_path / "out", shard=InputShard(0, 2))


def encode(pattern: str, output: Path, *flags: str) -> int:
    return main(["encode", pattern, str(output), "--model=electra_demo", *flags], load=load)


def test_the_command_encodes_a_shard_and_reports_what_a_retry_cannot_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.setswitchinterval", lambda _: None)
    pattern, output = write_files(tmp_path / "in", ".parquet"), tmp_path / "out.parquet"
    assert encode(pattern, output, "--input-shard=1/2") == 0
    first = pq.read_table(output)["row"][0].as_py()
    assert first == sum(pq.read_metadata(tmp_path / f"in/{number}.parquet").num_rows for number in range(2))
    assert encode(pattern, output, "--input-shard=0/2") == 3
    assert encode(pattern, output, "--input-shard=1/2", "--dtype=float16") == 3
    assert encode(pattern, tmp_path / "other", "--input-shard=1/9") == 3
    (tmp_path / "text").touch()
    assert encode(pattern, tmp_path / "text") == 3
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("electra-serve: ")]) == 4
    for wrong in ("2/2", "x", ""):
        with pytest.raises(SystemExit) as ended:
            encode(pattern, output, f"--input-shard={wrong}")
        assert ended.value.code == 2
    assert "must be INDEX/COUNT, and INDEX from 0 and below COUNT; got 2/2" in capsys.readouterr().err


def test_wrong_arguments_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.setswitchinterval", lambda _: None)
    pattern = write_files(tmp_path / "in", ".parquet")
    for flag, message in (
        ("--truncate=some", "must be one of none, right, .*; got some"),
        ("--shard-rows=0", "must be an integer of at least 1; got 0"),
        ("--top-k=x", "must be an integer of at least 1; got x"),
    ):
        with pytest.raises(SystemExit) as ended:
            encode(pattern, tmp_path / "out", flag)
        assert ended.value.code == 2
        usage, last = capsys.readouterr().err.splitlines()
        assert usage.endswith("encode INPUT OUTPUT --model PRESET [options]")
        assert re.search(message, last)
    assert encode(pattern, tmp_path / "out", "--pooling=cls", "--outputs=mean_output") == 3
    assert encode(pattern, tmp_path / "out", "--text-column=t") == 3
    assert encode(pattern, tmp_path / "out", "--strict") == 3
    assert encode(pattern, tmp_path / "out", "--id-column=id") == 0
