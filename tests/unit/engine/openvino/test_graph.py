"""The graph computes what the Keras model computes, for each shape of architecture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from electra_serve.engine.base import Engine, ShapeGrid
from electra_serve.engine.openvino.build import build_engines
from electra_serve.errors import EngineUnavailable
from electra_serve.model.backbone import ElectraBackbone
from electra_serve.model.outputs import compute_outputs
from electra_serve.model.weights import assign
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.folder import PresetFolder, read_preset_folder
from electra_serve.presets.weights import draw_weights
from electra_serve.settings.schema import ModelSettings
from electra_serve.tensors import Batch, Float32Array, Output, Outputs

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
GRID = ShapeGrid(max_rows=4, max_length=12)


def preset(config: BackboneConfig, folder: Path) -> tuple[ElectraBackbone, PresetFolder]:
    """A model with weights large enough that a wrong one shows, and its folder."""
    backbone = ElectraBackbone.from_config(config.to_mapping())
    assign(backbone.weights_by_path(), draw_weights(config, seed=1, stddev=0.4))
    backbone.save_to_preset(folder)
    return backbone, read_preset_folder(folder, id_="model", source="local", load_weights=True)


def batch(config: BackboneConfig, rows: int, length: int) -> Batch:
    generator = np.random.default_rng(0)
    mask = generator.integers(0, 2, (rows, length))
    mask[:, length // 2] = 1
    return Batch(
        generator.integers(0, config.vocab_size, (rows, length)).astype(np.int32),
        generator.integers(0, config.num_segments, (rows, length)).astype(np.int32),
        mask.astype(np.int32),
    )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("outputs", [frozenset(Output), frozenset({Output.CLS, Output.POOLED})], ids=["all", "cls"])
def test_equals_the_keras_model(name: str, outputs: Outputs, tmp_path: Path) -> None:
    config = CONFIGS[name]
    backbone, folder = preset(config, tmp_path / "model")
    [engine] = build_engines(folder, ModelSettings(preset="model", dtype="float32"), GRID)
    engine.warm_up([])
    for rows, length in [(1, 1), (2, 12), (4, 5)]:
        sent = batch(config, rows, length)
        expected = compute_outputs(backbone, sent.token_ids, sent.segment_ids, sent.padding_mask, outputs)
        got = engine.run(sent, outputs)
        for output in outputs:
            assert np.abs(getattr(got, output.value) - np.asarray(expected[output])).max() <= 2e-5, output


def test_replicas_share_one_graph_and_answer_alike(tmp_path: Path) -> None:
    _, folder = preset(SMALL, tmp_path / "model")
    engines = build_engines(folder, ModelSettings(preset="model", dtype="float32", replicas=2), GRID)
    for engine in engines:
        engine.warm_up([])
    sent = batch(SMALL, 2, 6)
    answers = [engine.run(sent, frozenset({Output.MEAN})).mean_output for engine in engines]
    assert answers[0] is not None
    assert answers[1] is not None
    assert np.abs(answers[0] - answers[1]).max() <= 1e-6


def sequence_output(engine: Engine, sent: Batch) -> Float32Array:
    output = engine.run(sent, frozenset({Output.SEQUENCE})).sequence_output
    assert output is not None
    return output


def test_replicas_run_at_the_same_time_on_batches_of_their_own(tmp_path: Path) -> None:
    _, folder = preset(SMALL, tmp_path / "model")
    engines = build_engines(folder, ModelSettings(preset="model", dtype="float32", replicas=2, threads=1), GRID)
    sent = [batch(SMALL, 1, 12), batch(SMALL, 4, 5)]
    for engine in engines:
        engine.warm_up([])
    expected = [sequence_output(engine, own) for engine, own in zip(engines, sent, strict=True)]

    def run_often(index: int) -> float:
        runs = (sequence_output(engines[index], sent[index]) for _ in range(100))
        return max(float(np.abs(output - expected[index]).max()) for output in runs)

    with ThreadPoolExecutor(2) as pool:
        assert max(pool.map(run_often, range(2))) <= 1e-6


def test_answers_stay_what_they_are_when_the_engine_runs_again(tmp_path: Path) -> None:
    _, folder = preset(SMALL, tmp_path / "model")
    [engine] = build_engines(folder, ModelSettings(preset="model", dtype="float32"), GRID)
    engine.warm_up([])
    first = engine.run(batch(SMALL, 2, 6), frozenset({Output.SEQUENCE})).sequence_output
    assert first is not None
    kept = first.copy()
    zeros = np.zeros((2, 6), np.int32)
    engine.run(Batch(zeros, zeros, zeros + 1), frozenset({Output.SEQUENCE}))
    assert (first == kept).all()


def test_float16_is_refused(tmp_path: Path) -> None:
    _, folder = preset(SMALL, tmp_path / "model")
    with pytest.raises(EngineUnavailable, match="received float16"):
        build_engines(folder, ModelSettings(preset="model", dtype="float16"), GRID)
