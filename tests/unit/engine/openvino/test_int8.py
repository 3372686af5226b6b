"""int8 weights: rounded row by row, close to float32 with and without bfloat16 arithmetic."""

from __future__ import annotations

import numpy as np
import openvino as ov
import pytest
from openvino import opset15 as ops

from electra_serve.engine.openvino import compile as compilation
from electra_serve.engine.openvino.build import build_engines
from electra_serve.engine.openvino.graph import build_graph
from electra_serve.engine.openvino.layers import int8_weight
from electra_serve.engine.profiling import full_batch
from electra_serve.engine.shapes import ShapeLimits
from electra_serve.presets.catalog import DEMO_ID
from electra_serve.presets.sources import resolve_preset
from electra_serve.settings.schema import ModelSettings
from electra_serve.tensors import BatchShape, Float32Array, Output

NO_BFLOAT16 = {"int8", "float32"}


def evaluate(values: Float32Array) -> Float32Array:
    """The constant as used in the graph."""
    result = ops.result(int8_weight(values))
    compiled = ov.Core().compile_model(ov.Model([result], []), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(compiled([])[0])


def test_each_row_is_rounded_to_127_steps_of_its_own() -> None:
    scales = np.array([[1], [9], [0.01], [1e4], [2]], np.float32)
    values = scales * np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    step = np.abs(values).max(axis=1, keepdims=True) / 127
    rounded = evaluate(values)
    assert np.abs(rounded - values).max() > 0
    assert (np.abs(rounded - values) <= step / 2 * (1 + 1e-5)).all()


@pytest.mark.parametrize(
    "values", [np.zeros((2, 8)), np.full((1, 4), -3.0), np.full((1, 4), 1e-30), np.full((1, 4), 3e38)]
)
def test_extreme_rows_stay_finite_and_exact(values: Float32Array) -> None:
    values = values.astype(np.float32)
    np.testing.assert_allclose(evaluate(values), values, rtol=1e-5)


def test_every_dense_layer_has_int8_weights_and_nothing_else_has() -> None:
    preset = resolve_preset(DEMO_ID)
    graph = build_graph(preset, load_weights=True, int8=True)
    rounded = [op for op in graph.get_ops() if op.get_type_name() == "Constant" and op.get_element_type() == ov.Type.i8]
    # Four in each layer, one more in the last for its separate queries, the embedding projection, and the pooler.
    assert len(rounded) == 4 * preset.config.num_layers + 1 + 1 + 1


@pytest.mark.parametrize("native", [True, False], ids=["with bfloat16", "without"])
def test_any_preset_is_served_close_to_float32(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if native and not compilation.computes_in("bfloat16"):
        pytest.skip("this CPU does not compute in bfloat16")
    expected = mean("float32")
    if not native:
        monkeypatch.setattr(compilation, "computes_in", NO_BFLOAT16.__contains__)
    computed = mean("int8")
    cosines = (computed * expected).sum(axis=1) / np.linalg.norm(computed, axis=1) / np.linalg.norm(expected, axis=1)
    assert 0.998 <= cosines.min() < 1 - 1e-7


def mean(dtype: str) -> Float32Array:
    """`mean_output` of the embedded preset for a batch of a sequence in each row: (4, H)."""
    settings = ModelSettings(preset=DEMO_ID, engine="openvino", dtype=dtype)  # type: ignore[arg-type]
    engine = build_engines(resolve_preset(DEMO_ID), settings, ShapeLimits(max_length=40, max_positions=160)).engines[0]
    engine.warm_up()
    output = engine.run(full_batch(BatchShape(4, 40)), frozenset({Output.MEAN})).mean_output
    engine.close()
    assert output is not None
    return output[:, 0]
