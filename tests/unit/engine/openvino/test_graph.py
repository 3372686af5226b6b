"""The graph computes what the Keras model computes, for each shape of architecture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from electra_serve.engine.base import Engine
from electra_serve.engine.openvino import build as building
from electra_serve.engine.openvino.build import build_engines
from electra_serve.engine.profiling import full_batch
from electra_serve.engine.shapes import ShapeLimits, cpu_shapes, single_rows
from electra_serve.errors import EngineUnavailable
from electra_serve.model.backbone import ElectraBackbone
from electra_serve.model.outputs import PackedInputs, compute_outputs
from electra_serve.model.weights import assign
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.folder import PresetFolder, read_preset_folder
from electra_serve.presets.weights import draw_weights
from electra_serve.settings.schema import ModelSettings
from electra_serve.tensors import ENCODER_OUTPUTS, Batch, BatchShape, Encoding, Float32Array, Output, Outputs, Placement

SMALL = BackboneConfig(
    vocab_size=50, num_layers=2, num_heads=2, hidden_dim=16, embedding_dim=8, intermediate_dim=24,
    max_sequence_length=12,
)  # fmt: skip
CONFIGS = {
    "embedding narrower": SMALL,
    "embedding as wide": replace(SMALL, embedding_dim=16),
    "embedding wider": replace(SMALL, embedding_dim=24),
    "one layer": replace(SMALL, num_layers=1),
    "exact gelu": replace(SMALL, hidden_activation="gelu"),
    "four segments, one head": replace(SMALL, num_segments=4, num_heads=1),
}
LIMITS = ShapeLimits(max_length=12, max_positions=48)
SHAPES = [BatchShape(1, 12), BatchShape(2, 12), BatchShape(4, 12)]


def preset(config: BackboneConfig, folder: Path) -> tuple[ElectraBackbone, PresetFolder]:
    """A model with weights large enough to show a wrong one, and its folder."""
    backbone = ElectraBackbone.from_config(config.to_mapping())
    assign(backbone.weights_by_path(), draw_weights(config, seed=1, stddev=0.4))
    backbone.save_to_preset(folder)
    return backbone, read_preset_folder(folder, id_="model", source="local", load_weights=True)


def batch(config: BackboneConfig, shape: BatchShape) -> Batch:
    """Rows of three sequences, with holes in their masks, in which the first position may be masked too."""
    generator = np.random.default_rng(0)
    encodings, places = [], []
    for row in range(shape.rows):
        for slot, (start, length) in enumerate(((0, 5), (5, 1), (7, 4))):
            mask = generator.integers(0, 2, length).astype(np.int32)
            mask[-1] = 1
            ids = generator.integers(0, config.vocab_size, length).astype(np.int32)
            segments = generator.integers(0, config.num_segments, length).astype(np.int32)
            encodings.append(Encoding(ids, segments, mask, length, int(mask.sum())))
            places.append(Placement(row, slot, start, length))
    return Batch.pack(encodings, places, shape)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("outputs", [ENCODER_OUTPUTS, frozenset({Output.CLS, Output.POOLED})], ids=["all", "cls"])
def test_equals_the_keras_model(name: str, outputs: Outputs, tmp_path: Path) -> None:
    config = CONFIGS[name]
    backbone, folder = preset(config, tmp_path / "model")
    engine = build(folder, replicas=1)
    for shape in SHAPES:
        sent = batch(config, shape)
        expected = compute_outputs(backbone, PackedInputs.of(sent), outputs)
        got = engine.run(sent, outputs)
        for output in outputs:
            assert np.abs(getattr(got, output.value) - np.asarray(expected[output])).max() <= 2e-5, output


def build(folder: PresetFolder, **settings: int) -> Engine:
    """One engine, warm."""
    chosen = ModelSettings.model_validate({"preset": "model", "dtype": "float32", **settings})
    engine = build_engines(folder, chosen, LIMITS).engines[0]
    engine.warm_up()
    return engine


def sequence_output(engine: Engine, sent: Batch) -> Float32Array:
    output = engine.run(sent, frozenset({Output.SEQUENCE})).sequence_output
    assert output is not None
    return output


def test_engines_compute_alike_at_the_same_time(tmp_path: Path) -> None:
    _, folder = preset(SMALL, tmp_path / "model")
    settings = ModelSettings(preset="model", dtype="float32", replicas=2, threads=1)
    engines = build_engines(folder, settings, LIMITS).engines
    sent = [batch(SMALL, shape) for shape in SHAPES[:2]]
    for engine in engines:
        engine.warm_up()
    expected = [sequence_output(engines[0], own) for own in sent]

    def run_often(index: int) -> float:
        runs = (sequence_output(engines[index], sent[index]) for _ in range(100))
        return max(float(np.abs(output - expected[index]).max()) for output in runs)

    with ThreadPoolExecutor(2) as pool:
        assert max(pool.map(run_often, range(2))) <= 1e-6


@pytest.mark.parametrize(("cores", "engines", "lone"), [(1, 1, False), (2, 2, True)])
def test_each_core_has_an_engine_and_lone_requests_have_all_cores(
    cores: int, engines: int, lone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "usable_cores", lambda: cores)
    _, folder = preset(SMALL, tmp_path / "model")
    built = build_engines(folder, ModelSettings(preset="model", dtype="float32"), LIMITS)
    assert (len(built.engines), built.lone is not None) == (engines, lone)
    shapes = cpu_shapes(LIMITS)
    assert all(engine.signature.shapes == shapes for engine in built.engines)
    if built.lone is not None:
        assert built.lone.signature.shapes == single_rows(shapes)


def test_outputs_do_not_change_when_the_engine_runs_again(tmp_path: Path) -> None:
    _, folder = preset(SMALL, tmp_path / "model")
    engine = build(folder)
    first = sequence_output(engine, batch(SMALL, SHAPES[1]))
    kept = first.copy()
    engine.run(full_batch(SHAPES[1]), frozenset({Output.SEQUENCE}))
    assert (first == kept).all()


def test_float16_is_rejected(tmp_path: Path) -> None:
    _, folder = preset(SMALL, tmp_path / "model")
    with pytest.raises(EngineUnavailable, match="got float16"):
        build_engines(folder, ModelSettings(preset="model", dtype="float16"), LIMITS)
