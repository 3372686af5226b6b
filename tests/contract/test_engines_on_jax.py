"""The engines' contract once more in a process whose Keras runs on JAX: a process has one backend."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import coverage
import pytest

from electra_serve.errors import EngineUnavailable
from electra_serve.presets.sources import resolve_preset
from electra_serve.settings.schema import ModelSettings
from electra_serve.tensors import Output
from tests.contract.engines import ALL, GRID, ON_JAX, build_for, random_batch

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}


@pytest.mark.skipif(ON_JAX, reason="this is that process")
def test_the_contract_holds_on_jax() -> None:
    # What the child covers, whoever measures this process combines with its own.
    measured = coverage.Coverage.current() is not None
    python = [sys.executable, *(["-m", "coverage", "run", "--parallel-mode"] if measured else [])]
    tests = [
        "tests/contract/test_engines.py",
        __file__,
        "service/electra_serve/engine/keras/jax",
    ]
    child = subprocess.run(
        [*python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stdout


@pytest.mark.skipif(not ON_JAX, reason="needs Keras on JAX")
def test_nothing_at_all_is_compiled_by_a_run() -> None:
    import jax

    engine = build_for("jax", 2, 8)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, _, **__: compiled.append(event))
    for outputs in (frozenset({Output.POOLED}), frozenset({Output.MEAN}), ALL):
        engine.run(random_batch(2, 8), outputs)
    assert [event for event in compiled if "compile" in event] == []
    jax.jit(lambda x: x + 41)(1)
    assert [event for event in compiled if "compile" in event] != []  # the listener hears


@pytest.mark.skipif(not ON_JAX, reason="needs Keras on JAX")
def test_fused_attention_is_tried_before_it_is_trusted(caplog: pytest.LogCaptureFixture) -> None:
    import jax

    from electra_serve.engine.keras.jax.attention import choose_attention, cudnn_attention, works_on, xla_attention

    def maskless(query: Any, key: Any, value: Any, _: Any) -> Any:
        return xla_attention(query, key, value, None)

    [cpu, *_] = jax.devices("cpu")
    assert works_on(cpu, xla_attention, "bfloat16", (16, 2, 8))
    assert not works_on(cpu, maskless, "bfloat16", (16, 2, 8))
    assert not works_on(cpu, cudnn_attention, "bfloat16", (16, 2, 8))
    assert "fused attention is not to be had" in caplog.text
    assert choose_attention(cpu, "bfloat16", (2, 8), GRID) is None


@pytest.mark.skipif(not ON_JAX, reason="needs Keras on JAX")
def test_threads_are_not_ignored() -> None:
    from electra_serve.engine.keras.jax.build import build_engines

    preset = resolve_preset("electra_demo", load_weights=False)
    settings = ModelSettings(preset="electra_demo", dtype="float32", threads=2, load_weights=False)
    with pytest.raises(EngineUnavailable, match="threads must be 0 for the jax engine"):
        build_engines(preset, settings, GRID)
