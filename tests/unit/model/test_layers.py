"""The layers by themselves: masks, fewer rows, 16-bit types, configs."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from service.model.attention import HeadsDense, SelfAttention, mask_to_bias
from service.model.layers import PositionEmbedding, TransformerEncoder

MASK = np.array([[1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 1, 1]])


def rows(seed: int, scale: float = 1.0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(0, scale, (2, 6, 8)).astype(np.float32)


def encoder(dtype: str = "float32", activation: str = "gelu_tanh") -> TransformerEncoder:
    layer = TransformerEncoder(8, 2, 16, activation=activation, dtype=dtype)
    layer(rows(0))
    generator = np.random.default_rng(1)
    layer.set_weights([generator.normal(0, 0.5, weight.shape) for weight in layer.get_weights()])
    return layer


def test_a_bias_made_once_equals_a_mask() -> None:
    layer = encoder()
    with_mask = layer(rows(1), padding_mask=MASK)
    np.testing.assert_array_equal(layer(rows(1), attention_bias=mask_to_bias(MASK)), with_mask)
    assert np.abs(np.asarray(with_mask) - np.asarray(layer(rows(1)))).max() > 0.1


def test_masked_positions_get_no_attention_at_all() -> None:
    changed = rows(1)
    changed[MASK == 0] = 1e3
    before, after = (np.asarray(encoder()(inputs, padding_mask=MASK)) for inputs in (rows(1), changed))
    np.testing.assert_array_equal(before[MASK == 1], after[MASK == 1])


@pytest.mark.parametrize("query_rows", [1, 2, 6])
def test_fewer_rows_are_the_first_of_all(query_rows: int) -> None:
    layer = encoder()
    found = layer(rows(1), padding_mask=MASK, query_rows=query_rows)
    np.testing.assert_allclose(found, layer(rows(1), padding_mask=MASK)[:, :query_rows], atol=1e-6)


def test_a_single_position_attends_to_itself_without_a_warning() -> None:
    found = encoder()(rows(1)[:, :1], padding_mask=MASK[:, :1])
    alone = np.zeros((2, 6), int)
    alone[:, 0] = 1
    np.testing.assert_allclose(found, encoder()(rows(1), padding_mask=alone)[:, :1], atol=1e-6)


def test_a_wholly_masked_row_is_finite_even_in_float16() -> None:
    assert np.isfinite(np.asarray(encoder("float16")(rows(1), padding_mask=MASK * 0))).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_softmax_is_float32_whatever_the_dtype(dtype: str) -> None:
    # Two scores 1/512 apart: as bfloat16 they are one number, and so would their probabilities be.
    attention = SelfAttention(8, 2, dtype=dtype)
    scores = np.array([[[[5.0, 5.0 + 1 / 512, 9.0]]]], np.float32)
    bias = np.array([[[[0.0, 0.0, -1e9]]]], np.float32)
    found = attention._softmax(scores + bias)
    expected = np.exp(scores[0, 0, 0, :2]) / np.exp(scores[0, 0, 0, :2]).sum()
    assert found.dtype == "float32"
    np.testing.assert_allclose(np.asarray(found)[0, 0, 0], [*expected, 0], atol=1e-7)


@pytest.mark.parametrize(
    "layer",
    [
        PositionEmbedding(5, name="positions"),
        HeadsDense((8, 2, 4), (2, 4), name="query", dtype="bfloat16"),
        SelfAttention(8, 2, 0.25, name="attention"),
        TransformerEncoder(8, 2, 16, 0.25, "gelu", name="layer", dtype="mixed_float16"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_survive_the_round_trip(layer: keras.layers.Layer) -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()


def test_the_exact_gelu_is_another_function() -> None:
    tanh, exact = (np.asarray(encoder(activation=name)(rows(1))) for name in ("gelu_tanh", "gelu"))
    difference = np.abs(tanh - exact).max()
    assert 1e-5 < difference < 1e-2
