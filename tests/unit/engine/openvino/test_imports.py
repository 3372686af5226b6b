"""The engine imports neither Keras nor TensorFlow, checked in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from electra_serve.cli.main import main

SERVES = """
import sys
from electra_serve.engine.factory import load_model
from electra_serve.settings.schema import BatchingSettings, ModelSettings

forks = []
sys.addaudithook(lambda event, _: forks.append(event) if event == "os.fork" else None)
loaded = load_model(ModelSettings(preset=sys.argv[1]), BatchingSettings())
assert loaded.engines[0].signature.engine == "openvino"
print(sorted({"keras", "tensorflow", "jax", "openvino_telemetry.main"} & set(sys.modules)), forks)
"""


@pytest.fixture
def artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["compile", "electra_demo", str(tmp_path / "artifact")]) == 0
    capsys.readouterr()
    return tmp_path / "artifact"


@pytest.mark.parametrize("compiled", [True, False], ids=["artifact", "preset"])
def test_serving_imports_no_other_backend_and_calls_no_server(artifact: Path, compiled: bool) -> None:
    preset = str(artifact) if compiled else "electra_demo"
    ran = subprocess.run([sys.executable, "-c", SERVES, preset], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "[] []\n"), ran.stderr
