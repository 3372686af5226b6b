"""The same code on Keras' jax backend gives KerasHub's numbers too. Needs jax."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.data.reader import CASES, OUTPUTS, PRESETS, Arrays, read_case

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    path = tmp_path_factory.mktemp("jax") / "outputs.npz"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "tests.conformance.jax_outputs", str(path)], check=True, cwd=root, env=environment
    )
    with np.load(path) as arrays:
        return dict(arrays)


def test_it_was_jax(found: Arrays) -> None:
    assert found["backend"] == "jax"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("preset", PRESETS)
def test_outputs_are_kerashubs(found: Arrays, preset: str, case: str) -> None:
    inputs, expected = read_case(preset, case)
    mask = inputs["padding_mask"][:, :, None]
    for name in OUTPUTS:
        golden = expected[name]
        masked = golden * mask if name == "sequence_output" else golden
        assert np.abs(found[f"{preset}/{case}/{name}/called"] - golden).max() <= 1e-5
        assert np.abs(found[f"{preset}/{case}/{name}/computed"] - masked).max() <= 1e-5
