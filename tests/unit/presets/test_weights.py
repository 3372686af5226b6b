"""Weights without Keras: the paths, shapes, order and numbers that the Keras model has."""

from __future__ import annotations

import numpy as np
import pytest

from electra_serve.model.loading import load_backbone
from electra_serve.presets.catalog import CATALOG
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.weights import draw_weights, read_weights, weight_shapes


@pytest.mark.parametrize("load_weights", [True, False])
def test_are_those_of_the_keras_model(load_weights: bool) -> None:
    preset = resolve_preset("electra_demo")
    layout = load_backbone(preset, dtype="float32", load_weights=load_weights).weights_by_path()
    weights = dict(read_weights(preset, preset.config, load_weights=load_weights))
    assert list(weights) == list(layout)
    for path, variable in layout.items():
        assert np.array_equal(weights[path], np.asarray(variable)), path


@pytest.mark.parametrize("preset", CATALOG.values(), ids=list(CATALOG))
def test_shapes_hold_every_parameter(preset: object) -> None:
    config = preset.config  # type: ignore[attr-defined]
    assert sum(int(np.prod(shape)) for shape in weight_shapes(config).values()) == config.parameters


def test_drawn_weights_are_the_seeds_and_bounded() -> None:
    config = BackboneConfig(10, 2, 2, 8, 4, 16)
    first, same, other = (dict(draw_weights(config, seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(first[path], same[path]) for path in first)
    assert any(not np.array_equal(first[path], other[path]) for path in first)
    assert max(np.abs(values).max() for values in first.values() if values.ndim > 1) <= 0.04


def test_drawn_weights_have_the_deviation_asked_for() -> None:
    drawn = dict(draw_weights(BackboneConfig(500, 1, 2, 64, 64, 64), seed=0, stddev=0.5))
    embedding = drawn["layers/reversible_embedding/vars/0"]
    assert np.abs(embedding).max() == pytest.approx(1.0, abs=0.01)
    assert embedding.std() == pytest.approx(0.88 * 0.5, rel=0.02)  # of a normal cut at two deviations
