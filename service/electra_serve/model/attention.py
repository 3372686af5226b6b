"""Multi-head self-attention, on `keras.ops` alone.

Attribute names are part of the file format: Keras names a weight in an h5 file after the attributes that lead
to it, so `_self_attention_layer.query_dense` is what makes these weights KerasHub's. Matrix products are
written on (B·T, D) matrices, not on (B, T, D) stacks: backends fuse bias and activation into a plain matrix
product, and need no shape arithmetic for one.

Shapes use B for sequences, T for positions attended to, Q for positions computed (T, or fewer), D for the
hidden width, N for heads and K = D / N for one head's width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import keras
from keras import ops

from electra_serve.model.initializers import KernelInitializer, truncated_normal

PACKAGE: Final = "electra_serve"
"""Under which this project's classes are registered with Keras."""

MASKED_SCORE: Final = -1e9
"""What is added to the score of a masked position: softmax then makes it exactly 0 in float32."""

Tensor = Any
"""A tensor of Keras' backend, for which Keras has no type of its own."""

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Fused attention of a backend's own, for inference: (B, T, N, K) query, key and value and the (B, 1, T, T) bias of
`sequence_bias` to (B, T, N, K). It scales by 1 / √K, and its softmax is float32 too."""


def mask_to_bias(padding_mask: Tensor) -> Tensor:
    """What to add to attention scores so that masked positions get no attention.

    One such tensor serves every layer of a forward pass. A row that is masked throughout attends to all its
    positions alike.

    Args:
        padding_mask: (B, T), 1 for positions that count and 0 for others, of any dtype.

    Returns:
        (B, 1, 1, T) float32: 0 or `MASKED_SCORE`.
    """
    masked = ops.cast(ops.logical_not(ops.cast(padding_mask, "bool")), "float32")  # (B, T)
    return ops.multiply(masked, MASKED_SCORE)[:, None, None, :]  # (B, 1, 1, T)


def sequence_bias(query_ids: Tensor, key_ids: Tensor) -> Tensor:
    """Confines attention to keys with the id of the query, for sequences that share a row.

    One such tensor serves every layer of a forward pass. If masked keys have id 0, as padding has, then padding attends
    to them, and no query is without a key.

    Args:
        query_ids: (B, Q), the sequence of each query.
        key_ids: (B, T), the sequence of each key; 0 for masked keys.

    Returns:
        (B, 1, Q, T) float32: 0 or `MASKED_SCORE`, to be added to attention scores.
    """
    others = ops.cast(ops.not_equal(query_ids[:, :, None], key_ids[:, None, :]), "float32")  # (B, Q, T)
    return ops.multiply(others, MASKED_SCORE)[:, None]  # (B, 1, Q, T)


@keras.saving.register_keras_serializable(PACKAGE)
class HeadsDense(keras.layers.Layer):
    """A dense layer on matrices whose weights are kept per attention head.

    The kernel of a query, key or value projection is (D, N, K), its bias (N, K); that of the projection
    back is (N, K, D), its bias (D,). Both are a plain D × D matrix underneath.

    Args:
        kernel_shape: (D, N, K) or (N, K, D).
        bias_shape: (N, K) or (D,).
        kernel_initializer: How the kernel starts.
        **kwargs: `name`, `dtype` and what else a Keras layer takes.
    """

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
        """Projects (M, D) to (M, D)."""
        kernel = ops.reshape(self.kernel, (inputs.shape[-1], -1))  # (D, D)
        return ops.add(ops.matmul(inputs, kernel), ops.reshape(self.bias, (-1,)))

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer.get_config`."""
        return {**super().get_config(), "kernel_shape": self.kernel_shape, "bias_shape": self.bias_shape}


@keras.saving.register_keras_serializable(PACKAGE)
class SelfAttention(keras.layers.Layer):
    """Multi-head scaled dot-product attention ("Attention Is All You Need", section 3.2).

    The softmax is computed in float32 whatever the dtype policy.

    Args:
        hidden_dim: D.
        num_heads: N; divides D.
        dropout: Dropout rate of the attention probabilities, in training.
        kernel_initializer: How kernels start.
        **kwargs: `name`, `dtype` and what else a Keras layer takes.
    """

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
        """Attends from `queries` to `values`.

        Args:
            queries: (B, Q, D).
            values: (B, T, D), of which keys and values are made.
            attention_bias: (B, 1, 1, T) or (B, 1, Q, T) float32, from `mask_to_bias` or `sequence_bias`; None: nothing
                is masked.
            training: Whether to drop out.
            attend: Computes scores, softmax and context instead, without dropout; needs Q = T.

        Returns:
            (B, Q, D).
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
        if scores.shape[-1] == 1:  # one position takes all the attention; Keras would warn of such a softmax
            return ops.ones_like(scores)
        scores = ops.cast(scores, "float32")
        if attention_bias is not None:
            scores = ops.add(scores, attention_bias)
        return ops.cast(self._softmax(scores), self.compute_dtype)

    def _heads(self, dense: HeadsDense, inputs: Tensor, order: tuple[int, int, int, int] = (0, 1, 2, 3)) -> Tensor:
        """Projects (B, T, D) to (B, T, N, K), its axes in `order`."""
        batch, length, _ = ops.shape(inputs)
        projected = dense(ops.reshape(inputs, (-1, self.hidden_dim)))  # (B·T, D)
        split = ops.reshape(projected, (batch, length, self.num_heads, self.head_dim))
        return ops.transpose(split, order)

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer.get_config`."""
        own = {"hidden_dim": self.hidden_dim, "num_heads": self.num_heads, "dropout": self.dropout}
        return {**super().get_config(), **own}
