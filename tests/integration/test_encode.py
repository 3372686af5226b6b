"""`electra-serve encode` as a process, on a real engine: kills, signals, limits, standard input, a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.stand_in.answers import HIDDEN_DIM
from tests.integration.process import ROOT
from tests.waiting import wait_until

ROWS = [f"row {row} of a corpus" + " with some more words" * (row * 7 % 13) for row in range(600)]
END_S = 120.0
SHARDS = ("--model=electra_demo", "--shard-rows=50")
"""Twelve shards."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text, "id": row}) + "\n" for row, text in enumerate(ROWS)))
    return path


@contextlib.contextmanager
def encoding(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Starts the command, and kills it at the end of the context if it still runs."""
    command = [sys.executable, "-m", "electra_serve", "encode", *map(str, arguments)]
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    process = subprocess.Popen(command, cwd=ROOT, text=True, **given)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(*arguments: object, **options: Any) -> tuple[int, str]:
    """Runs the command to its end; returns its code, and its last line of standard error."""
    with encoding(*arguments, **options) as process:
        _, errors = process.communicate(timeout=END_S)
        return process.returncode, (errors or "").strip().rpartition("\n")[2]


def shards(output: Path) -> int:
    """Number of finished shards."""
    return len(list(output.with_name(f"{output.name}.partial").glob("records/*.json")))


def wait_for(condition: Callable[[], bool]) -> None:
    wait_until(condition, END_S)


def test_killed_at_random_moments_it_continues_to_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    output, whole = tmp_path / "out.parquet", tmp_path / "whole.parquet"
    moments = random.Random(time.time_ns())
    kills = 0
    for goal in (0, 1, 3, 6, 9):
        with encoding(corpus, output, *SHARDS) as process:
            wait_for(lambda: shards(output) > goal or process.poll() is not None)  # noqa: B023  # called here
            time.sleep(moments.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        assert not output.exists() or process.returncode == 0
        if not whole.exists() and shards(output):
            # An uninterrupted run with the same cost table, which another start would measure again.
            partial = tmp_path / "whole.parquet.partial"
            partial.mkdir()
            shutil.copy(tmp_path / "out.parquet.partial/manifest.json", partial)
            assert finish(corpus, whole, *SHARDS)[0] == 0
    assert kills >= 3
    assert finish(corpus, output, *SHARDS)[0] == 0
    assert output.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("out")} == {
        *("out.parquet", "out.parquet.manifest.json"),
    }


def test_vectors_are_those_of_the_service(corpus: Path, tmp_path: Path, rest: httpx.Client) -> None:
    code, error = finish(corpus, tmp_path / "out.npy", "--model=electra_demo", "--normalize")
    assert code == 0, error
    encoded = np.load(tmp_path / "out.npy")
    served = []
    for start in range(0, len(ROWS), 200):
        body = {"input": ROWS[start : start + 200], "model": "electra_demo"}
        served += [
            item["embedding"] for item in rest.post("/v1/embeddings", json=body).raise_for_status().json()["data"]
        ]
    assert np.abs(encoded - np.array(served, np.float32)).max() <= 1e-5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_hint(number: signal.Signals, corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    with encoding(corpus, output, *SHARDS) as process:
        wait_for(lambda: shards(output) > 0)
        process.send_signal(number)
        _, errors = process.communicate(timeout=END_S)
    assert process.returncode == 128 + number
    last = errors.strip().rpartition("\n")[2]
    assert last.startswith("electra-serve: interrupted; ")
    assert last.endswith(" rows are done, and the same command continues")
    assert not output.exists()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_file_size_limit_is_one_line_and_the_run_continues(corpus: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # the whole array has 460 kB, a shard 38 kB

    output = tmp_path / "out.npy"
    code, last = finish(corpus, output, *SHARDS, preexec_fn=limit)
    assert code == 1
    assert last.startswith("electra-serve: cannot write ")
    assert last.endswith("whole.bin: File too large; 600 of 600 rows are done, and the same command continues")
    assert not output.exists()
    assert finish(corpus, output, *SHARDS)[0] == 0
    assert np.load(output).shape == (600, HIDDEN_DIM)


def test_standard_input_starts_again(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    flags = ("--input-format=jsonl", *SHARDS)
    with encoding("-", output, *flags, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(2 * corpus.read_text())
        process.stdin.flush()  # and no end
        wait_for(lambda: shards(output) > 0)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=END_S)
    assert process.returncode == 128 + signal.SIGTERM
    assert "but standard input cannot be continued" in errors.strip().rpartition("\n")[2]
    with corpus.open() as source:
        assert finish("-", output, *flags, stdin=source)[0] == 0
    assert np.load(output).shape == (600, HIDDEN_DIM)


def test_a_report_that_is_not_read_is_no_fault(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    reader, writer = os.pipe()
    os.close(reader)
    code, last = finish(corpus, output, *SHARDS, stdout=writer)
    os.close(writer)
    assert (code, "model loaded" in last) == (0, True), last
    assert np.load(output).shape == (600, HIDDEN_DIM)


def test_a_terminal_gets_a_bar(corpus: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with encoding(corpus, tmp_path / "out.npy", *SHARDS, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal is closed
            while part := os.read(ours, 65536):
                shown += part
        os.close(ours)
        assert process.wait(END_S) == 0
    bars = [line for line in shown.decode().split("\r") if "tokens/s" in line]
    assert "600/600" in bars[-1]


def test_the_snippet_of_the_docs_encodes_a_table() -> None:
    page = (ROOT / "docs/bulk.md").read_text("utf-8")
    section = page.partition("## In other programs")[2]
    [code] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    first, second = namespace["table"].to_pylist()
    assert (first["id"], first["error"], second["mean_output"]) == (1, None, None)
    assert len(first["mean_output"]) == HIDDEN_DIM
    assert second["error"] == "the value must not be null; got null"
