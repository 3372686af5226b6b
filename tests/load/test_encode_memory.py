"""Memory of `electra-serve encode` on an engine that computes nothing: bounded for any number of rows."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.stand_in.answers import HIDDEN_DIM
from benchmarks.stand_in.script import Script
from tests.integration.process import ROOT
from tests.load.conftest import Report

SHORT_ROWS: Final = 120_000
LONG_ROWS: Final = 10_000_000
MOST_BYTES: Final = 2**30
"""Above the memory at the start of the first window."""
MOST_GROWTH_BYTES: Final = 60 * 2**20
"""From the first half of the run to the second."""
IDS: Final = 8
END_S: Final = 3000.0
POLL_S: Final = 0.02
NULL_ENGINE: Final = Script(batch_s=0, position_s=0, faults=False, known=False)


def write_rows(path: Path, count: int) -> None:
    """Writes short rows of token ids, in row groups of half a million."""
    group = 500_000
    with pq.ParquetWriter(path, pa.schema([("ids", pa.list_(pa.int32()))])) as writer:
        for start in range(0, count, group):
            rows = min(group, count - start)
            ids = np.random.default_rng(start).integers(5, 3990, rows * IDS, dtype=np.int32)
            offsets = np.arange(0, rows * IDS + 1, IDS, dtype=np.int32)
            writer.write_table(pa.table({"ids": pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids))}))


@contextlib.contextmanager
def encoding(source: Path, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    flags = ("--model=electra_demo", "--token-ids-column=ids", "--dtype=float16")
    command = [sys.executable, "-m", "benchmarks.stand_in", "encode", str(source), str(output), *flags]
    variables = {**os.environ, **NULL_ENGINE.environment}
    process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def resident(pid: int) -> int | None:
    """Bytes of a process without pages of files; None after its end."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("RssAnon:")]
    return 1024 * found[0] if found else None


def measure(tmp_path: Path, rows: int) -> tuple[int, list[tuple[int, int]]]:
    """Encodes rows; returns the memory at the start, and samples of finished shards and memory."""
    source, output = tmp_path / "rows.parquet", tmp_path / "vectors.npy"
    write_rows(source, rows)
    started = tmp_path / "vectors.npy.partial/manifest.json"
    samples: list[tuple[int, int]] = []
    with encoding(source, output) as process:
        deadline = time.monotonic() + END_S
        while process.poll() is None:
            assert time.monotonic() < deadline
            found = resident(process.pid)
            if found is not None and started.exists():
                samples.append((len(list(started.parent.glob("records/*.json"))), found))
            time.sleep(POLL_S)
        assert process.returncode == 0
    assert np.load(output, mmap_mode="r").shape == (rows, HIDDEN_DIM)
    return samples[0][1], samples


def check(start: int, samples: list[tuple[int, int]], report: Report) -> None:
    shards = max(done for done, _ in samples)
    assert shards >= 4
    peak = max(found for _, found in samples)
    first, second = (
        max(found for done, found in samples if (done * 2 >= shards) is late and done > 0) for late in (False, True)
    )
    report(f"{shards} shards: {start / 1e6:.0f} MB at the start, {(peak - start) / 1e6:.0f} MB more at most")
    assert peak - start <= MOST_BYTES
    assert second - first <= MOST_GROWTH_BYTES


def test_memory_is_bounded_in_a_short_run(tmp_path: Path, report: Report) -> None:
    start, samples = measure(tmp_path, SHORT_ROWS)
    check(start, samples, report)


@pytest.mark.long
def test_memory_is_bounded_for_ten_million_rows(tmp_path: Path, report: Report) -> None:
    start, samples = measure(tmp_path, LONG_ROWS)
    check(start, samples, report)
