"""The model can be trained."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from electra_serve.model import ElectraBackbone

INPUTS = {
    "token_ids": np.arange(12, dtype=np.int32).reshape(2, 6),
    "segment_ids": np.zeros((2, 6), np.int32),
    "padding_mask": np.ones((2, 6), np.int32),
}


@pytest.fixture
def backbone() -> ElectraBackbone:
    return ElectraBackbone(12, 2, 2, 8, embedding_dim=4, intermediate_dim=16, dropout=0.5)


def test_dropout_is_active_in_training_alone(backbone: ElectraBackbone) -> None:
    first, second = (np.asarray(backbone(INPUTS).pooled_output) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    first, second = (np.asarray(backbone(INPUTS, training=True).pooled_output) for _ in range(2))
    assert np.abs(first - second).max() > 0


def test_a_training_step_moves_every_weight(backbone: ElectraBackbone) -> None:
    hidden = keras.layers.GlobalAveragePooling1D()(backbone.output.sequence_output)
    both = keras.layers.Concatenate()([hidden, backbone.output.pooled_output])
    model = keras.Model(backbone.input, keras.layers.Dense(3)(both))
    before = [np.array(weight) for weight in backbone.get_weights()]
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse")
    model.fit(INPUTS, np.ones((2, 3)), epochs=3, batch_size=2, verbose=0)
    after = backbone.get_weights()
    moved = {w.path for w, a, b in zip(backbone.weights, before, after, strict=True) if np.abs(a - b).max() > 0}
    key_biases = {weight.path for weight in backbone.weights if weight.path.endswith("key/bias")}
    assert {weight.path for weight in backbone.weights} - moved <= key_biases  # softmax cancels a bias of all keys


def test_a_frozen_backbone_has_nothing_to_train() -> None:
    assert ElectraBackbone(12, 1, 2, 8, intermediate_dim=16, trainable=False).trainable_weights == []
