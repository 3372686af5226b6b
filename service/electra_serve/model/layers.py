"""The layers of an ELECTRA encoder that Keras does not have, on `keras.ops` alone.

Class and attribute names are part of the file format, as in `electra_serve.model.attention`. Whatever the dtype
policy, softmax and layer normalisation are computed in float32.

Shapes use B for sequences, T for their length, Q for positions computed (T, or fewer), E for the embedding width,
D for the hidden width and I for the feed-forward width.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import keras
from keras import ops

from electra_serve.model.attention import PACKAGE, Attend, SelfAttention, Tensor, mask_to_bias
from electra_serve.model.initializers import KernelInitializer, truncated_normal

LAYER_NORM_EPSILON: Final = 1e-12

ACTIVATIONS: Final = {
    "gelu_tanh": partial(keras.activations.gelu, approximate=True),
    "gelu": partial(keras.activations.gelu, approximate=False),
}
"""The functions behind `electra_serve.presets.config.HIDDEN_ACTIVATIONS`."""


@keras.saving.register_keras_serializable(PACKAGE)
class PositionEmbedding(keras.layers.Layer):
    """A trained vector for each position.

    Args:
        sequence_length: How many positions there are vectors for.
        kernel_initializer: How the vectors start.
        **kwargs: `name`, `dtype` and what else a Keras layer takes.
    """

    def __init__(
        self, sequence_length: int, kernel_initializer: KernelInitializer = truncated_normal, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.sequence_length, self._kernel_initializer = sequence_length, kernel_initializer

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        """Makes the vectors, as wide as the inputs."""
        self.position_embeddings = self.add_weight(
            name="embeddings", shape=(self.sequence_length, inputs_shape[-1]), initializer=self._kernel_initializer()
        )
        self.built = True

    def call(self, inputs: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """Returns the vector of each position.

        Args:
            inputs: (B, T, E); only its shape matters.
            position_ids: (B, T), each position within its sequence; None: 0 to T - 1.

        Returns:
            (B, T, E); without `position_ids` (1, T, E), to be added to each of B sequences.
        """
        vectors = ops.convert_to_tensor(self.position_embeddings)  # JAX slices no variables
        if position_ids is not None:
            return ops.take(vectors, position_ids, axis=0)  # (B, T, E)
        return ops.slice(vectors, (0, 0), ops.shape(inputs)[1:])[None]  # (1, T, E)

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The inputs' own, which is what comes of adding the two: (1, T, E) would fix a model's batch size at 1."""
        return inputs_shape

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer.get_config`."""
        return {**super().get_config(), "sequence_length": self.sequence_length}


@keras.saving.register_keras_serializable(PACKAGE)
class TransformerEncoder(keras.layers.Layer):
    """One post-norm transformer layer, as BERT's: attention, add, norm, feed-forward, add, norm.

    Args:
        hidden_dim: D.
        num_heads: Attention heads; divides D.
        intermediate_dim: I.
        dropout: Dropout rate, in training.
        activation: One of `ACTIVATIONS`.
        kernel_initializer: How kernels start.
        **kwargs: `name`, `dtype` and what else a Keras layer takes.
    """

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
        """Makes the weights."""
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
        """Encodes.

        Args:
            inputs: (B, T, D).
            padding_mask: (B, T), 1 for positions that may be attended to; None: all may.
            attention_bias: (B, 1, 1, T) or (B, 1, Q, T), for callers that have it; `padding_mask` is then unused.
            training: Whether to drop out.
            queries: (B, Q, D), those of `inputs` to compute; they still attend to all T. None: all.
            attend: Fused attention; unused if `queries` are given.

        Returns:
            (B, Q, D), Q being T without `queries`.
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
        """The layers that have weights, by the attributes that lead to them: their paths in an h5 file."""
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
        """(B, Q, D), said outright: tracing `call` for each layer would make building a model slow."""
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
    """Keras' layer normalisation, which computes in float32 and answers in the policy's dtype."""
    return keras.layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, dtype=dtype, name=name)


def dense(
    units: int, name: str, *, dtype: keras.DTypePolicy, kernel_initializer: KernelInitializer, activation: Any = None
) -> keras.layers.Dense:
    """Keras' dense layer, with a fresh initializer."""
    return keras.layers.Dense(
        units, activation=activation, kernel_initializer=kernel_initializer(), dtype=dtype, name=name
    )
