"""Single layers: masks, fewer rows, 16-bit dtypes, configs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from electra_serve.model.attention import MASKED_SCORE, HeadsDense, SelfAttention, mask_to_bias, sequence_bias
from electra_serve.model.layers import PositionEmbedding, TransformerEncoder, layer_norm

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


@pytest.mark.parametrize("positions", [[0], [0, 3], [5, 5, 0, 2, 1, 4, 3]])
def test_some_queries_are_computed_as_among_all(positions: list[int]) -> None:
    layer = encoder()
    found = layer(rows(1), padding_mask=MASK, queries=rows(1)[:, positions])
    np.testing.assert_allclose(found, np.asarray(layer(rows(1), padding_mask=MASK))[:, positions], atol=1e-6)


def test_sequences_in_a_row_attend_as_if_alone() -> None:
    layer, together = encoder(), rows(1)
    ids = np.array([[1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
    key_ids = ids * np.array([[1, 0, 0, 1, 1, 0], [1, 1, 1, 1, 0, 1]])
    found = np.asarray(layer(together, attention_bias=sequence_bias(ids, key_ids)))
    for row, span in ((0, slice(0, 2)), (0, slice(2, 5)), (1, slice(0, 6))):
        alone = layer(together[row : row + 1, span], padding_mask=(key_ids[row, span] > 0)[None])
        np.testing.assert_allclose(found[row, span], alone[0], atol=1e-6)


def test_no_query_is_without_a_key() -> None:
    ids = np.array([[1, 1, 2, 2, 0, 0]])
    bias = np.asarray(sequence_bias(ids, ids * np.array([[0, 1, 1, 1, 0, 0]])))
    assert bias.shape == (1, 1, 6, 6)
    assert (bias == 0).any(axis=-1).all()
    assert set(np.unique(bias)) == {0.0, np.float32(MASKED_SCORE)}


def test_position_ids_choose_the_vectors_of_positions() -> None:
    layer = PositionEmbedding(6)
    vectors = np.asarray(layer(rows(0)))[0]
    ids = np.array([[0, 1, 2, 0, 1, 0], [5, 4, 3, 2, 1, 0]])
    np.testing.assert_array_equal(layer(rows(0), ids), vectors[ids])


def test_a_single_position_attends_to_itself_without_a_warning() -> None:
    found = encoder()(rows(1)[:, :1], padding_mask=MASK[:, :1])
    alone = np.zeros((2, 6), int)
    alone[:, 0] = 1
    np.testing.assert_allclose(found, encoder()(rows(1), padding_mask=alone)[:, :1], atol=1e-6)


def test_attention_drops_out_in_training_alone() -> None:
    attention = SelfAttention(8, 2, dropout=0.5)
    trained, again = (np.asarray(attention(rows(1), rows(1), training=True)) for _ in range(2))
    assert np.abs(trained - again).max() > 0
    np.testing.assert_array_equal(attention(rows(1), rows(1)), attention(rows(1), rows(1), training=False))


def test_a_wholly_masked_row_is_finite_even_in_float16() -> None:
    assert np.isfinite(np.asarray(encoder("float16")(rows(1), padding_mask=MASK * 0))).all()


def rounded(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], dtype: str) -> keras.KerasTensor:
    return keras.ops.cast(values, dtype)


def agreement(found: object, exact: np.ndarray[tuple[int, ...], np.dtype[np.float64]], dtype: str) -> float:
    """Share of the numbers in `found` that are the nearest of `dtype` to the exact ones."""
    return float(keras.ops.mean(keras.ops.cast(keras.ops.equal(found, rounded(exact, dtype)), "float32")))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_softmax_is_as_exact_as_float32_whatever_the_dtype(dtype: str) -> None:
    scores = rounded(np.random.default_rng(0).normal(0, 3, (2, 2, 32, 48)), dtype)
    exponentials = np.exp(np.asarray(keras.ops.cast(scores, "float64")))
    exact = exponentials / exponentials.sum(-1, keepdims=True)
    assert agreement(SelfAttention(8, 2, dtype=dtype)._probabilities(scores, None), exact, dtype) > 0.99
    naive = keras.ops.exp(scores)
    assert agreement(naive / keras.ops.sum(naive, -1, keepdims=True), exact, dtype) < 0.9


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_layer_norm_is_as_exact_as_float32_whatever_the_dtype(dtype: str) -> None:
    inputs = rounded(np.random.default_rng(0).normal(3, 1, (64, 96)), dtype)
    values = np.asarray(keras.ops.cast(inputs, "float64"))
    exact = (values - values.mean(-1, keepdims=True)) / values.std(-1, keepdims=True)
    assert agreement(layer_norm(keras.DTypePolicy(dtype), "norm")(inputs), exact, dtype) > 0.98
    centered = inputs - keras.ops.mean(inputs, -1, keepdims=True)
    naive = centered * keras.ops.rsqrt(keras.ops.mean(centered * centered, -1, keepdims=True))
    assert agreement(naive, exact, dtype) < 0.9


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


def test_fused_attention_gives_what_the_layers_own_does() -> None:
    def attend(query: Any, key: Any, value: Any, bias: Any) -> Any:
        scores = np.einsum("bqnk,btnk->bnqt", query, key) / np.sqrt(query.shape[-1]) + np.asarray(bias)
        exponentials = np.exp(scores - scores.max(-1, keepdims=True))
        return np.einsum("bnqt,btnk->bqnk", exponentials / exponentials.sum(-1, keepdims=True), value)

    layer, bias = encoder(), mask_to_bias(MASK)
    found = layer(rows(1), attention_bias=bias, attend=attend)
    np.testing.assert_allclose(found, layer(rows(1), attention_bias=bias), atol=1e-5)


def test_fused_attention_is_not_used_for_some_queries() -> None:
    def attend(*_: Any) -> Any:
        raise AssertionError

    encoder()(rows(1), padding_mask=MASK, queries=rows(1)[:, :1], attend=attend)
