"""The commands of the tutorials run as they are printed, on small checkpoints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from electra_serve import ElectraClient
from electra_serve.presets.heads import HeadConfig
from tests.contract.heads import preset_with
from tests.integration.process import READY_S, ROOT, free_port
from tests.waiting import wait_until

TUTORIALS = ROOT / "docs" / "tutorials"
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
CROSS_ENCODER = HeadConfig("sequence_classification", ("LABEL_0",), "sigmoid")
ADDRESS = "127.0.0.1:8080"
SOURCE = str(ROOT / "service")


def blocks(page: str, language: str) -> list[str]:
    text = (TUTORIALS / page).read_text(encoding="utf-8")
    return [block for found, block in FENCE.findall(text) if found == language]


def commands(page: str) -> list[tuple[str, str]]:
    """Each command of a page, and the output that is printed below it."""
    found = []
    for block in blocks(page, "console"):
        command, _, output = block.removeprefix("$ ").partition("\n{")
        found.append((command.strip(), "{" + output if output else ""))
    return found


@contextmanager
def serving(command: str, folder: Path) -> Iterator[str]:
    """Runs the command that starts the service in a folder, on a free port; yields its address."""
    port, grpc_port = free_port(), free_port()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ELECTRA_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ports = {"ELECTRA_REST__PORT": str(port), "ELECTRA_GRPC__PORT": str(grpc_port)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=folder,
            env={**variables, **ports, "PATH": path, "PYTHONPATH": SOURCE},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(ready, READY_S)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def shape(value: object) -> object:
    """Names and types of JSON: of a list, those of its first entry."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape(member) for member in value[:1]]
    return type(value).__name__


def make_ranker(folder: Path) -> None:
    preset_with(CROSS_ENCODER, folder / "keras")
    convert(folder / "keras", folder / "ranker")


def make_encoder(folder: Path) -> None:
    preset = preset_with(CROSS_ENCODER, folder / "keras")
    convert(folder / "keras", folder / "encoder", "--head=none")
    encoder, width = folder / "encoder", preset.config.hidden_dim
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    (encoder / "modules.json").write_text(json.dumps(modules))
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    (encoder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    prompts = {"prompts": {"query": "query: "}}
    (encoder / "config_sentence_transformers.json").write_text(json.dumps(prompts))


def convert(source: Path, target: Path, *flags: str) -> None:
    command = [sys.executable, "-m", "electra_serve", "presets", "convert", str(source), str(target)]
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    subprocess.run([*command, "--to=transformers", *flags], check=True, capture_output=True, env=environment)


def run_page(page: str, make: Callable[[Path], None], folder: Path) -> dict[str, Any]:
    """Runs the commands and the Python of a page; returns the names that the Python has defined."""
    make(folder)
    (serve, _), *others = commands(page)
    assert serve.startswith("electra-serve serve ")
    assert any(output for _, output in others)
    with serving(serve, folder) as address:
        for command, output in others:
            done = subprocess.run(
                ["bash", "-c", command.replace(ADDRESS, address)], check=True, capture_output=True, text=True
            )
            response = json.loads(done.stdout)
            assert "status" not in response, response
            if output:
                assert shape(response) == shape(json.loads(output))
        (source,) = blocks(page, "python")
        names: dict[str, Any] = {"ElectraClient": ElectraClient}
        exec(source.replace(ADDRESS, address), names)  # our own example
    return names


def test_serve_a_cross_encoder(tmp_path: Path) -> None:
    names = run_page("cross-encoder.md", make_ranker, tmp_path)
    assert sorted(passage for _, passage in names["ranking"]) == sorted(names["passages"])
    assert names["ranking"][0][0] == max(names["scores"])
    assert all(0 < score < 1 for score in names["scores"])


def test_serve_a_sentence_encoder(tmp_path: Path) -> None:
    names = run_page("sentence-encoder.md", make_encoder, tmp_path)
    assert names["query"] == "query: Who was in a hurry?"
    assert names["closest"] in names["sentences"]
    assert (names["vectors"] ** 2).sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_every_tutorial_is_run_and_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in TUTORIALS.glob("*.md")}
    assert pages == {"cross-encoder.md", "sentence-encoder.md"}
    assert all(f"](tutorials/{page})" in index for page in pages)
