"""Real Ray on one machine: the example, and two actors of which one is killed. `make ray-check`."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.integration.process import ROOT

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is in an environment of its own: make ray-check"),
]
LIMIT_S = 600.0
STARTS = 3
NOT_STARTED = "The current node timed out during startup"
COUNT = 960
ROWS = [f"row {row} of a corpus" + " with some more words" * (row * 7 % 13) for row in range(COUNT)]
NULLS = {7, 500}


def run(command: list[str], home: Path) -> None:
    """Runs Python with the token of Ray's cluster in a folder of the test.

    Ray's start fails if one of its processes takes 15 s, as on a busy machine. Only such a failure is tried again.
    """
    for _ in range(STARTS):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, "HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
        if done.returncode == 0 or NOT_STARTED not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "rows.parquet"
    texts = [None if row in NULLS else text for row, text in enumerate(ROWS)]
    table = pa.table({"id": range(COUNT), "text": texts, "tags": [{"even": row % 2 == 0} for row in range(COUNT)]})
    pq.write_table(table, path, row_group_size=120)
    return path


@pytest.fixture(scope="module")
def expected(source: Path) -> pa.Table:
    """Output of the command."""
    output = source.with_name("whole.parquet")
    run(
        ["-m", "electra_serve", "encode", str(source), str(output), "--model=electra_demo", "--truncate"], source.parent
    )
    return pq.read_table(output)


def matrix(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float32]]:
    array = column.combine_chunks()
    return np.asarray(array.flatten().to_numpy(), np.float32).reshape(-1, array.type.list_size)


def check(output: Path, expected: pa.Table) -> None:
    """Every row exactly once, with its other columns, and the vectors of the command."""
    table = ds.dataset(output, format="parquet").to_table().sort_by("id")
    assert table.column_names == ["id", "text", "tags", "embedding", "error"]
    assert table["id"].to_pylist() == list(range(COUNT))
    assert table["tags"].to_pylist() == [{"even": row % 2 == 0} for row in range(COUNT)]
    assert {row for row, error in enumerate(table["error"].to_pylist()) if error is not None} == NULLS
    assert table.schema.field("embedding").type == expected.schema.field("embedding").type
    kept = table.filter(table["error"].is_null())
    assert kept["id"].to_pylist() == expected["row"].to_pylist()
    assert np.abs(matrix(kept["embedding"]) - matrix(expected["embedding"])).max() <= 1e-5


def test_every_row_is_encoded_exactly_once_although_an_actor_is_killed(
    source: Path, expected: pa.Table, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    run(["-m", "tests.conformance.ray_kill", str(source), str(tmp_path / "out"), str(marks)], tmp_path)
    assert (marks / "killed").exists()
    assert len(list(marks.glob("*.pid"))) >= 3  # two actors, and the one that replaced the killed one
    check(tmp_path / "out", expected)


def test_the_example_encodes_a_folder(source: Path, expected: pa.Table, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / source.name).symlink_to(source)
    run(["examples/ray_encode.py", str(folder), str(tmp_path / "out"), "--model=electra_demo", "--actors=1"], tmp_path)
    check(tmp_path / "out", expected)
