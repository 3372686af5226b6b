"""The engines' contract once more in a process whose Keras runs on JAX: a process has one backend."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import coverage
import numpy as np
import pytest

from electra_serve.engine.base import Engine
from electra_serve.errors import EngineUnavailable
from electra_serve.model.attention import Attend
from electra_serve.model.loading import load_encoder
from electra_serve.presets.sources import resolve_preset
from electra_serve.settings.schema import ModelSettings
from electra_serve.tensors import Output, Outputs, RowOutput
from tests.contract.engines import ALL, LIMITS, ON_JAX, SHAPES, SINGLE, Packed, build_one, random_packed, reference, run
from tests.contract.short_memory import LIMITS as SERVED_LIMITS
from tests.contract.short_memory import memory_short_for_large_batches, serve_demo

ROOT = Path(__file__).parents[2]
FIRST = frozenset({Output.CLS, Output.POOLED})
"""Outputs of first positions alone."""
ENVIRONMENT = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}


@pytest.mark.skipif(ON_JAX, reason="this is that process")
def test_the_contract_holds_on_jax() -> None:
    # The coverage of the child is combined with that of this process.
    measured = coverage.Coverage.current() is not None
    python = [sys.executable, *(["-m", "coverage", "run", "--parallel-mode"] if measured else [])]
    tests = [
        "tests/contract/test_engines.py",
        "tests/contract/test_engine_heads.py",
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


def warm_engine(fused: Attend) -> Engine:
    """An engine that takes batches of `SINGLE` and tries `fused`."""
    import jax

    from electra_serve.engine.keras.jax.engine import JaxEngine

    [cpu, *_] = jax.devices("cpu")
    encoder = load_encoder(resolve_preset("electra_demo"), dtype="float32", load_weights=True)
    weights = [weight.value for weight in encoder.weights]
    engine = JaxEngine(encoder, weights, device=cpu, name="cpu", shapes=(SINGLE,), fused=fused)
    engine.warm_up()
    return engine


def assert_as_alone(packed: Packed, found: list[RowOutput], outputs: Outputs) -> None:
    for one, encoding in zip(found, packed.encodings, strict=True):
        for name in outputs:
            assert np.abs(one.get(name) - reference(encoding)[name]).max() <= 1e-5


@pytest.mark.skipif(not ON_JAX, reason="needs Keras on JAX")
def test_without_working_fused_attention_an_engine_uses_plain_and_compiles_nothing_more() -> None:
    import jax

    from electra_serve.engine.keras.jax.attention import CUDNN

    engine, packed = warm_engine(CUDNN), random_packed(SINGLE)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, _, **__: compiled.append(event))
    found = {outputs: run(engine, packed, outputs) for outputs in (ALL, FIRST, frozenset({Output.MEAN}))}
    assert [event for event in compiled if "compile" in event] == []
    jax.jit(lambda x: x + 41)(1)
    assert [event for event in compiled if "compile" in event] != []  # the listener hears
    for outputs, rows in found.items():
        assert_as_alone(packed, rows, outputs)


@pytest.mark.skipif(not ON_JAX, reason="needs Keras on JAX")
def test_an_engine_uses_fused_attention_that_works() -> None:
    from electra_serve.engine.keras.jax.attention import PLAIN

    traced: list[int] = []

    def fused(query: Any, key: Any, value: Any, bias: Any) -> Any:
        traced.append(query.shape[0])
        return PLAIN(query, key, value, bias)

    engine, packed = warm_engine(fused), random_packed(SINGLE)
    # Once for three rows to verify it, and in every layer but the last one of first positions alone.
    layers = resolve_preset("electra_demo").config.num_layers
    assert traced == [3] + [1] * (2 * layers - 1)
    for outputs in (ALL, FIRST):
        assert_as_alone(packed, run(engine, packed, outputs), outputs)


@pytest.mark.skipif(not ON_JAX, reason="needs Keras on JAX")
def test_fused_attention_is_verified_on_packed_rows(caplog: pytest.LogCaptureFixture) -> None:
    import jax

    from electra_serve.engine.keras.jax.attention import CUDNN, PLAIN, fused_attention, verified, works_on

    def maskless(query: Any, key: Any, value: Any, _: Any) -> Any:
        return PLAIN(query, key, value, None)

    def rowwise(query: Any, key: Any, value: Any, bias: Any) -> Any:
        return PLAIN(query, key, value, bias.max(axis=2, keepdims=True))  # as if rows had one sequence

    [cpu, *_] = jax.devices("cpu")
    for length in (SINGLE.length, 1):
        assert works_on(cpu, PLAIN, "bfloat16", (length, 2, 8))
    assert not works_on(cpu, maskless, "bfloat16", (16, 2, 8))
    assert not works_on(cpu, rowwise, "bfloat16", (16, 2, 8))
    assert not works_on(cpu, CUDNN, "bfloat16", (16, 2, 8))
    assert "fused attention is not available" in caplog.text
    assert verified(PLAIN, cpu, "bfloat16", (2, 8), SHAPES(LIMITS)) is PLAIN
    assert verified(maskless, cpu, "bfloat16", (2, 8), SHAPES(LIMITS)) is None
    assert fused_attention(cpu, "bfloat16") is None


@pytest.mark.skipif(not ON_JAX, reason="needs Keras on JAX")
def test_threads_are_not_ignored() -> None:
    from electra_serve.engine.keras.jax.build import build_engines

    preset = resolve_preset("electra_demo", load_weights=False)
    settings = ModelSettings(preset="electra_demo", device="cpu", dtype="float32", threads=2, load_weights=False)
    with pytest.raises(EngineUnavailable, match="threads must be 0 for the jax engine"):
        build_engines(preset, settings, LIMITS)


@pytest.mark.skipif(not ON_JAX, reason="needs Keras on JAX")
@pytest.mark.parametrize(("dtype", "precise"), [("float32", True), ("bfloat16", False), ("float16", False)])
def test_float32_products_ask_for_all_bits(dtype: str, *, precise: bool) -> None:
    from electra_serve.engine.keras.jax.engine import JaxEngine

    engine = build_one("jax", dtype=dtype)
    assert isinstance(engine, JaxEngine)
    for outputs in (ALL, FIRST):
        products = [line for line in engine._lower(outputs, SINGLE).as_text().splitlines() if "dot_general" in line]
        assert products
        assert {"HIGHEST" in line for line in products} == {precise}
    engine.close()


@pytest.mark.skipif(not ON_JAX, reason="needs Keras on JAX")
def test_a_closed_engine_leaves_no_array_behind() -> None:
    import jax

    gc.collect()
    before = len(jax.live_arrays())
    engine = build_one("jax")
    run(engine, random_packed(SINGLE))
    alive = weakref.ref(engine)
    assert len(jax.live_arrays()) > before
    engine.close()
    del engine
    gc.collect()
    assert alive() is None
    assert len(jax.live_arrays()) <= before


@pytest.mark.skipif(not ON_JAX, reason="needs Keras on JAX")
async def test_short_memory_halves_the_batch() -> None:
    async with serve_demo() as served:
        before = await served.encode()
        with memory_short_for_large_batches(served.engine):
            found = await served.encode()
        assert served.batches_out_of_memory() >= 1
        assert served.max_positions() < SERVED_LIMITS.max_positions
        for one, other in zip(found, before, strict=True):
            assert np.abs(one.get(Output.MEAN) - other.get(Output.MEAN)).max() <= 1e-5
        await served.encode()  # memory is there again
