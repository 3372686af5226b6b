"""The layers that an encoder is drawn with, as OpenVINO operations.

What fuses decides the speed, so each layer is drawn the way the CPU plugin recognises:

- Matrix products are of (M, D) matrices with (D, O) constants: a bias, and an activation after it, become part of the
  product. Query, key and value are one product, whose result is transposed once and cut without copying.
- Attention is product, sum, softmax, product on (B, N, T, K): the plugin runs it as one loop that never writes the
  scores to memory.
- A normalisation's axes are a vector: the plugin does not fuse one whose axis is a scalar.

Layer normalisation and what it adds stay float32 at every precision: the plugin lowers products only.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from openvino import Node, Output
from openvino import opset15 as ops

LAYER_NORM_EPSILON: Final = 1e-12
MASKED_SCORE: Final = -1e9
"""What is added to the score of a masked position, as in `service.model.attention`."""
GELU: Final = {"gelu_tanh": "tanh", "gelu": "erf"}
"""OpenVINO's names of `service.presets.config.HIDDEN_ACTIVATIONS`."""

Tensor = Node | Output


def integers(values: ArrayLike) -> Node:
    """A constant of int32: shapes, axes and indices."""
    return ops.constant(np.asarray(values, np.int32))


def weight(values: NDArray[np.float32]) -> Node:
    """A constant of float32."""
    return ops.constant(np.ascontiguousarray(values, np.float32))


def dense(x: Tensor, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> Node:
    """(M, D) times (D, O), plus (O,): (M, O)."""
    return ops.add(ops.matmul(x, weight(kernel), False, False), weight(bias[None]))


def layer_norm(x: Tensor, gamma: NDArray[np.float32], beta: NDArray[np.float32]) -> Node:
    """Normalises the last axis: (…, D) to (…, D)."""
    normal = ops.mvn(x, ops.constant(np.array([-1], np.int64)), True, LAYER_NORM_EPSILON, "INSIDE_SQRT")
    return ops.add(ops.multiply(normal, weight(gamma)), weight(beta))


def mask_to_bias(padding_mask: Tensor) -> Node:
    """(B, T) integers to (B, 1, 1, T): 0 where the mask is 1, `MASKED_SCORE` where it is 0."""
    masked = ops.subtract(weight(np.float32(1)), ops.convert(padding_mask, "f32"))  # (B, T)
    return ops.unsqueeze(ops.multiply(masked, weight(np.float32(MASKED_SCORE))), integers([1, 2]))  # (B, 1, 1, T)


def split_heads(x: Tensor, batch: Tensor, length: Tensor, parts: int, heads: int, head_dim: int) -> list[Output]:
    """(B·T, parts·N·K) to `parts` tensors of (B, N, T, K), by one transposition."""
    shape = ops.concat([batch, length, integers([parts, heads, head_dim])], 0)
    split = ops.transpose(ops.reshape(x, shape, False), integers([2, 0, 3, 1, 4]))  # (parts, B, N, T, K)
    return [ops.squeeze(part, integers([0])).output(0) for part in ops.split(split, integers(0), parts).outputs()]


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, width: int) -> Node:
    """Scaled queries (B, N, Q, K), keys and values (B, N, T, K), bias (B, 1, 1, T): to (B·Q, D)."""
    scores = ops.add(ops.matmul(query, key, False, True), bias)  # (B, N, Q, T)
    context = ops.matmul(ops.softmax(scores, 3), value, False, False)  # (B, N, Q, K)
    return ops.reshape(ops.transpose(context, integers([0, 2, 1, 3])), integers([-1, width]), False)
