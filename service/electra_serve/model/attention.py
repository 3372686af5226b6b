"""Multi-head self-attention on `keras.ops`. Attribute names are part of KerasHub's h5 format.

Products are of (B·T, D) matrices, since backends fuse bias and activation only into those. Shapes: B sequences, T
positions attended to, Q positions computed (at most T), D hidden width, N heads, K = D / N.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import keras
from keras import ops

from electra_serve.model.initializers import KernelInitializer, truncated_normal

PACKAGE: Final = "electra_serve"  # namespace of this project's classes in Keras' registry

MASKED_SCORE: Final = -1e9  # added to the score of a masked position: exactly 0 after a float32 softmax

Tensor = Any  # a tensor of any Keras backend; Keras has no type for it

# Fused attention for inference: (B, T, N, K) query, key and value and the (B, 1, T, T) bias of `sequence_bias` to
# (B, T, N, K). It scales by 1 / √K and has a float32 softmax.
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def mask_to_bias(padding_mask: Tensor) -> Tensor:
    """Converts a padding mask, (B, T) of 0 and 1, to an attention bias, (B, 1, 1, T) float32: 0 or `MASKED_SCORE`.

    A fully masked row attends to all its positions alike.
    """
    masked = ops.cast(ops.logical_not(ops.cast(padding_mask, "bool")), "float32")  # (B, T)
    return ops.multiply(masked, MASKED_SCORE)[:, None, None, :]  # (B, 1, 1, T)


def sequence_bias(query_ids: Tensor, key_ids: Tensor) -> Tensor:
    """Confines attention to keys of the query's sequence: (B, 1, Q, T) float32 of 0 or `MASKED_SCORE`.

    `query_ids` are (B, Q), `key_ids` (B, T). Masked keys and padding have id 0, so padding attends to those.
    """
    others = ops.cast(ops.not_equal(query_ids[:, :, None], key_ids[:, None, :]), "float32")  # (B, Q, T)
    return ops.multiply(others, MASKED_SCORE)[:, None]  # (B, 1, Q, T)


@keras.saving.register_keras_serializable(PACKAGE)
class HeadsDense(keras.layers.Layer):
    """A dense layer on matrices with weights per attention head: a kernel of (D, N, K) or (N, K, D)."""

    def __init__(
        self,
        kernel_shape: tuple[int, ...],
        bias_shape: tuple[int, ...],
        kernel_initializer: KernelInitializer = truncated_normal,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_shape, self.bias_shape = tuple(kernel_shape), tuple(bias_shape)
        self.kernel = self.add_weight(name="kernel", shape=self.kernel_shape, initializer=kernel_initializer())
        self.bias = self.add_weight(name="bias", shape=self.bias_shape, initializer="zeros")
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Maps (M, D) to (M, D)."""
        kernel = ops.reshape(self.kernel, (inputs.shape[-1], -1))  # (D, D)
        return ops.add(ops.matmul(inputs, kernel), ops.reshape(self.bias, (-1,)))

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer.get_config`."""
        return {**super().get_config(), "kernel_shape": self.kernel_shape, "bias_shape": self.bias_shape}


@keras.saving.register_keras_serializable(PACKAGE)
class SelfAttention(keras.layers.Layer):
    """Multi-head scaled dot-product attention ("Attention Is All You Need", section 3.2), with a float32 softmax."""

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        kernel_initializer: KernelInitializer = truncated_normal,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # a float16 cast would turn the attention bias into -inf
        self.hidden_dim, self.num_heads, self.dropout = hidden_dim, num_heads, dropout
        self.head_dim = hidden_dim // num_heads
        heads = (num_heads, self.head_dim)
        make = partial(HeadsDense, kernel_initializer=kernel_initializer, dtype=self.dtype_policy)
        self.query_dense = make((hidden_dim, *heads), heads, name="query")
        self.key_dense = make((hidden_dim, *heads), heads, name="key")
        self.value_dense = make((hidden_dim, *heads), heads, name="value")
        self.output_dense = make((*heads, hidden_dim), (hidden_dim,), name="attention_output")
        self._softmax = keras.layers.Softmax(dtype="float32", name="softmax")
        self._dropout_layer = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self.built = True

    def call(
        self,
        queries: Tensor,
        values: Tensor,
        attention_bias: Tensor | None = None,
        training: bool | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """Attends from `queries` (B, Q, D) to `values` (B, T, D); returns (B, Q, D).

        `attention_bias` is from `mask_to_bias` or `sequence_bias`; `attend` needs Q = T and applies no dropout.
        """
        if attend is None:
            context = self._attend(queries, values, attention_bias, training=training)  # (B, Q, N, K)
        else:
            query = self._heads(self.query_dense, queries)  # (B, T, N, K), as are the others
            key, value = self._heads(self.key_dense, values), self._heads(self.value_dense, values)
            context = attend(query, key, value, attention_bias)
        context = ops.reshape(context, (-1, self.hidden_dim))  # (B·Q, D)
        return ops.reshape(self.output_dense(context), ops.shape(queries))  # (B, Q, D)

    def _attend(
        self, queries: Tensor, values: Tensor, attention_bias: Tensor | None, *, training: bool | None
    ) -> Tensor:
        query = self._heads(self.query_dense, queries, (0, 2, 1, 3)) * self.head_dim**-0.5  # (B, N, Q, K)
        key = self._heads(self.key_dense, values, (0, 2, 3, 1))  # (B, N, K, T)
        value = self._heads(self.value_dense, values, (0, 2, 1, 3))  # (B, N, T, K)
        probabilities = self._probabilities(ops.matmul(query, key), attention_bias)  # (B, N, Q, T)
        context = ops.matmul(self._dropout_layer(probabilities, training=training), value)  # (B, N, Q, K)
        return ops.transpose(context, (0, 2, 1, 3))  # (B, Q, N, K)

    def _probabilities(self, scores: Tensor, attention_bias: Tensor | None) -> Tensor:
        if scores.shape[-1] == 1:  # Keras warns of a softmax over one position
            return ops.ones_like(scores)
        scores = ops.cast(scores, "float32")
        if attention_bias is not None:
            scores = ops.add(scores, attention_bias)
        return ops.cast(self._softmax(scores), self.compute_dtype)

    def _heads(self, dense: HeadsDense, inputs: Tensor, order: tuple[int, int, int, int] = (0, 1, 2, 3)) -> Tensor:
        batch, length, _ = ops.shape(inputs)
        projected = dense(ops.reshape(inputs, (-1, self.hidden_dim)))  # (B·T, D)
        split = ops.reshape(projected, (batch, length, self.num_heads, self.head_dim))  # (B, T, N, K)
        return ops.transpose(split, order)

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer.get_config`."""
        own = {"hidden_dim": self.hidden_dim, "num_heads": self.num_heads, "dropout": self.dropout}
        return {**super().get_config(), **own}
