"""The layers that an encoder is drawn with, as OpenVINO operations.

What fuses decides the speed, so each layer is drawn the way the CPU plugin recognises:

- Matrix products are of (M, D) matrices with (D, O) constants: a bias, and an activation after it, become part of the
  product. Query, key and value are one product, whose result is transposed once and cut without copying.
- Attention is product, sum, softmax, product on (R, N, P, K): the plugin runs it as one loop that never writes the
  scores to memory.
- A normalisation's axes are a vector: the plugin does not fuse one whose axis is a scalar.

Layer normalisation and what it adds stay float32 at every precision: the plugin lowers products only.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from openvino import opset15 as ops

LAYER_NORM_EPSILON: Final = 1e-12
MASKED_SCORE: Final = -1e9
"""What is added to the score of a masked position, as in `electra_serve.model.attention`."""
GELU: Final = {"gelu_tanh": "tanh", "gelu": "erf"}
"""OpenVINO's names of `electra_serve.presets.config.HIDDEN_ACTIVATIONS`."""

Tensor = Any
"""A node of the graph, or one of its outputs: OpenVINO has no types of its own."""


def integers(values: ArrayLike) -> Tensor:
    """A constant of int32: shapes, axes and indices."""
    return ops.constant(np.asarray(values, np.int32))


def weight(values: ArrayLike) -> Tensor:
    """A constant of float32."""
    return ops.constant(np.ascontiguousarray(values, np.float32))


def int8_weight(values: NDArray[np.float32]) -> Tensor:
    """A constant of int8 with a scale for each row, as float32: (O, D).

    Values are rounded to 127 steps either way, symmetrically. OpenVINO keeps the int8, and quantizes the activations
    that such a constant is multiplied with at run time.
    """
    scale = np.maximum(np.abs(values).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)  # (O, 1)
    rounded = np.round(values / scale).astype(np.int8)
    return ops.multiply(ops.convert(ops.constant(rounded), "f32"), weight(scale))


def matmul(a: Tensor, b: Tensor, *, transpose_b: bool = False) -> Tensor:
    """(…, M, D) times (…, D, O), or (…, O, D) where `transpose_b`: (…, M, O)."""
    return ops.matmul(a, b, transpose_a=False, transpose_b=transpose_b)


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """To `shape`, in which one axis may be -1."""
    return ops.reshape(x, shape, special_zero=False)


def take(x: Tensor, positions: Tensor) -> Tensor:
    """Of each row of (R, P, …), those at `positions`, (R, Q): (R, Q, …)."""
    return ops.gather(x, positions, integers(1), batch_dims=1)


def size(x: Tensor, axis: int) -> Tensor:
    """How long `axis` of `x` is: (1,) int32."""
    return ops.gather(ops.shape_of(x, output_type="i32"), integers([axis]), integers(0))


def dense(x: Tensor, kernel: NDArray[np.float32], bias: NDArray[np.float32], *, int8: bool = False) -> Tensor:
    """(M, D) times (D, O), plus (O,): (M, O). With `int8`, the kernel is rounded to that.

    The constant is (O, D), as the plugin wants it: given (D, O), each compiled model keeps a transposed copy.
    """
    constant = int8_weight(kernel.T) if int8 else weight(kernel.T)
    return ops.add(matmul(x, constant, transpose_b=True), weight(bias[None]))


def layer_norm(x: Tensor, gamma: NDArray[np.float32], beta: NDArray[np.float32]) -> Tensor:
    """Normalises the last axis: (…, D) to (…, D)."""
    normal = ops.mvn(x, integers([-1]), normalize_variance=True, eps=LAYER_NORM_EPSILON, eps_mode="INSIDE_SQRT")
    return ops.add(ops.multiply(normal, weight(gamma)), weight(beta))


def attention_bias(query_ids: Tensor, key_ids: Tensor) -> Tensor:
    """(R, Q) and (R, P) integers to (R, 1, Q, P): 0 where the two are equal, else `MASKED_SCORE`."""
    equal = ops.equal(ops.unsqueeze(query_ids, integers([1, 3])), ops.unsqueeze(key_ids, integers([1, 2])))
    return ops.select(equal, weight(0.0), weight(MASKED_SCORE))


def split_heads(x: Tensor, rows: Tensor, length: Tensor, parts: int, heads: int, head_dim: int) -> list[Tensor]:
    """(R·P, parts·N·K) to `parts` tensors of (R, N, P, K), by one transposition."""
    shape = ops.concat([rows, length, integers([parts, heads, head_dim])], 0)
    split = ops.transpose(reshape(x, shape), integers([2, 0, 3, 1, 4]))  # (parts, R, N, P, K)
    return [ops.squeeze(part, integers([0])).output(0) for part in ops.split(split, integers(0), parts).outputs()]


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, width: int) -> Tensor:
    """Scaled queries (R, N, Q, K), keys and values (R, N, P, K), bias (R, 1, Q, P): to (R·Q, D)."""
    scores = ops.add(matmul(query, key, transpose_b=True), bias)  # (R, N, Q, P)
    context = matmul(ops.softmax(scores, 3), value)  # (R, N, Q, K)
    return reshape(ops.transpose(context, integers([0, 2, 1, 3])), integers([-1, width]))
