"""Layers of an ELECTRA encoder that Keras does not have, on `keras.ops`, with names as in KerasHub's h5 format.

Layer normalization is float32 in every dtype policy. Shapes: B sequences of T positions, of which Q are computed;
widths E (embedding), D (hidden) and I (feed-forward).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import keras
from keras import ops

from electra_serve.model.attention import PACKAGE, Attend, SelfAttention, Tensor, mask_to_bias
from electra_serve.model.initializers import KernelInitializer, truncated_normal

LAYER_NORM_EPSILON: Final = 1e-12

# functions of `presets.config.HIDDEN_ACTIVATIONS`
ACTIVATIONS: Final = {
    "gelu_tanh": partial(keras.activations.gelu, approximate=True),
    "gelu": partial(keras.activations.gelu, approximate=False),
}


@keras.saving.register_keras_serializable(PACKAGE)
class PositionEmbedding(keras.layers.Layer):
    """A trained vector for each of `sequence_length` positions."""

    def __init__(
        self, sequence_length: int, kernel_initializer: KernelInitializer = truncated_normal, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.sequence_length, self._kernel_initializer = sequence_length, kernel_initializer

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        """Creates the vectors, as wide as the inputs."""
        self.position_embeddings = self.add_weight(
            name="embeddings", shape=(self.sequence_length, inputs_shape[-1]), initializer=self._kernel_initializer()
        )
        self.built = True

    def call(self, inputs: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """Returns (B, T, E) for `position_ids` (B, T), else (1, T, E) for positions 0 to T - 1 of `inputs`."""
        vectors = ops.convert_to_tensor(self.position_embeddings)  # JAX cannot slice variables
        if position_ids is not None:
            return ops.take(vectors, position_ids, axis=0)  # (B, T, E)
        return ops.slice(vectors, (0, 0), ops.shape(inputs)[1:])[None]  # (1, T, E)

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the inputs' shape: (1, T, E) would fix a model's batch size at 1."""
        return inputs_shape

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer.get_config`."""
        return {**super().get_config(), "sequence_length": self.sequence_length}


@keras.saving.register_keras_serializable(PACKAGE)
class TransformerEncoder(keras.layers.Layer):
    """One post-norm transformer layer, as BERT's: attention, add, norm, feed-forward, add, norm."""

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        intermediate_dim: int,
        dropout: float = 0.0,
        activation: str = "gelu_tanh",
        kernel_initializer: KernelInitializer = truncated_normal,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # a float16 cast would turn the attention bias into -inf
        self.hidden_dim, self.num_heads, self.intermediate_dim = hidden_dim, num_heads, intermediate_dim
        self.dropout, self.activation = dropout, activation
        dtype = self.dtype_policy
        make = partial(dense, dtype=dtype, kernel_initializer=kernel_initializer)
        self._self_attention_layer = SelfAttention(
            hidden_dim, num_heads, dropout, kernel_initializer, dtype=dtype, name="self_attention_layer"
        )
        self._self_attention_layer_norm = layer_norm(dtype, "self_attention_layer_norm")
        self._self_attention_dropout = keras.layers.Dropout(dropout, dtype=dtype, name="self_attention_dropout")
        self._feedforward_layer_norm = layer_norm(dtype, "feedforward_layer_norm")
        self._feedforward_intermediate_dense = make(
            intermediate_dim, "feedforward_intermediate_dense", activation=ACTIVATIONS[activation]
        )
        self._feedforward_output_dense = make(hidden_dim, "feedforward_output_dense")
        self._feedforward_dropout = keras.layers.Dropout(dropout, dtype=dtype, name="feedforward_dropout")

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:  # noqa: ARG002
        """Creates the weights."""
        hidden, intermediate = (None, self.hidden_dim), (None, self.intermediate_dim)
        self._self_attention_layer_norm.build(hidden)
        self._feedforward_intermediate_dense.build(hidden)
        self._feedforward_output_dense.build(intermediate)
        self._feedforward_layer_norm.build(hidden)
        self.built = True

    def call(
        self,
        inputs: Tensor,
        padding_mask: Tensor | None = None,
        attention_bias: Tensor | None = None,
        training: bool | None = None,
        queries: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """Computes one layer: `inputs` (B, T, D) to (B, Q, D).

        `padding_mask` is (B, T), 1 for positions that may be attended to; `attention_bias` replaces it. `queries`
        (B, Q, D) are the positions to compute, by default all of them; otherwise `attend` is unused.
        """
        inputs = ops.cast(inputs, self.compute_dtype)
        if attention_bias is None and padding_mask is not None:
            attention_bias = mask_to_bias(padding_mask)
        rows = inputs if queries is None else ops.cast(queries, self.compute_dtype)  # (B, Q, D)
        fused = attend if queries is None else None
        attended = self._self_attention_layer(rows, inputs, attention_bias, training=training, attend=fused)
        attended = self._self_attention_dropout(attended, training=training)
        rows = self._self_attention_layer_norm(rows + attended)
        return self._feedforward_layer_norm(rows + self._feed_forward(rows, training=training))

    def _feed_forward(self, rows: Tensor, *, training: bool | None) -> Tensor:
        x = ops.reshape(rows, (-1, self.hidden_dim))  # (B·Q, D)
        x = self._feedforward_output_dense(self._feedforward_intermediate_dense(x))
        return self._feedforward_dropout(ops.reshape(x, ops.shape(rows)), training=training)

    def weighted_layers(self) -> dict[str, keras.layers.Layer]:
        """Returns layers with weights, by their paths in an h5 file."""
        attention = self._self_attention_layer
        return {
            "_self_attention_layer/query_dense": attention.query_dense,
            "_self_attention_layer/key_dense": attention.key_dense,
            "_self_attention_layer/value_dense": attention.value_dense,
            "_self_attention_layer/output_dense": attention.output_dense,
            "_self_attention_layer_norm": self._self_attention_layer_norm,
            "_feedforward_intermediate_dense": self._feedforward_intermediate_dense,
            "_feedforward_output_dense": self._feedforward_output_dense,
            "_feedforward_layer_norm": self._feedforward_layer_norm,
        }

    def compute_output_spec(self, inputs: Any, *args: Any, queries: Any | None = None, **kwargs: Any) -> Any:  # noqa: ARG002
        """Returns (B, Q, D) without tracing `call`, which would make building a model slow."""
        return keras.KerasTensor((inputs if queries is None else queries).shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer.get_config`."""
        own = {
            "hidden_dim": self.hidden_dim,
            "num_heads": self.num_heads,
            "intermediate_dim": self.intermediate_dim,
            "dropout": self.dropout,
            "activation": self.activation,
        }
        return {**super().get_config(), **own}


def layer_norm(dtype: keras.DTypePolicy, name: str) -> keras.layers.LayerNormalization:
    """Returns Keras' layer normalization, which computes in float32 and returns the policy's dtype."""
    return keras.layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, dtype=dtype, name=name)


def dense(
    units: int, name: str, *, dtype: keras.DTypePolicy, kernel_initializer: KernelInitializer, activation: Any = None
) -> keras.layers.Dense:
    """Returns Keras' dense layer with a new initializer."""
    return keras.layers.Dense(
        units, activation=activation, kernel_initializer=kernel_initializer(), dtype=dtype, name=name
    )
