"""Weights without Keras: the paths, shapes, order and numbers that the Keras model has."""

from __future__ import annotations

import numpy as np
import pytest

from electra_serve.model.layout import weight_layout
from electra_serve.model.loading import load_backbone
from electra_serve.presets.catalog import CATALOG
from electra_serve.presets.sources import resolve_preset
from electra_serve.presets.weights import read_weights, weight_shapes


@pytest.mark.parametrize("load_weights", [True, False])
def test_are_those_of_the_keras_model(load_weights: bool) -> None:
    preset = resolve_preset("electra_demo")
    layout = weight_layout(load_backbone(preset, dtype="float32", load_weights=load_weights))
    weights = dict(read_weights(preset, preset.config, load_weights=load_weights))
    assert list(weights) == list(layout)
    for path, variable in layout.items():
        assert np.array_equal(weights[path], np.asarray(variable)), path


@pytest.mark.parametrize("preset", CATALOG.values(), ids=list(CATALOG))
def test_shapes_hold_every_parameter(preset: object) -> None:
    config = preset.config  # type: ignore[attr-defined]
    assert sum(int(np.prod(shape)) for shape in weight_shapes(config).values()) == config.parameters
