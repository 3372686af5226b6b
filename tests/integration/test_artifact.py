"""An artifact, made by the command and served by the real process next to its preset."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import pytest

from tests.integration.process import ROOT, ServiceProcess, start

TEXTS: Final = ["Hello, world!", "Is it safe to eat the skin of a kiwi?"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("artifact") / "compiled"
    command = [sys.executable, "-m", "electra_serve", "compile", "electra_demo", str(made)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def served(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with start(tmp_path_factory.mktemp("served"), "--models=electra_demo", f"--models={artifact}") as process:
        process.wait_ready()
        yield process


def test_returns_the_same_as_the_preset(served: ServiceProcess) -> None:
    responses = [
        httpx.post(f"{served.url}/v1/encode", json={"model": model, "text": TEXTS, "outputs": ["mean_output"]}).json()
        for model in ("electra_demo", "compiled")
    ]
    means = [np.array(response["mean_output"]) for response in responses]
    assert np.abs(means[0] - means[1]).max() <= 1e-5
    assert responses[0]["usage"] == responses[1]["usage"]


def test_describes_itself(served: ServiceProcess) -> None:
    info = httpx.get(f"{served.url}/v1/models/compiled").json()
    assert (info["engine"], info["dtype"], info["weights"], info["text"]) == ("openvino", "float32", "pretrained", True)
    assert info["parameters"] == httpx.get(f"{served.url}/v1/models/electra_demo").json()["parameters"]


def test_stops_on_a_signal(artifact: Path, tmp_path: Path) -> None:
    with start(tmp_path, f"--models={artifact}") as process:
        process.wait_ready()
        process.terminate()
        assert process.wait() == 0
        assert process.complaints == []
