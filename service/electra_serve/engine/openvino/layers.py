"""Layers of an encoder as OpenVINO operations, in the forms that the CPU plugin fuses.

- Products of (M, D) matrices with (D, O) constants include a bias and an activation.
- Query, key and value are one product, transposed once and split without a copy.
- Attention is product, sum, softmax, product on (R, N, P, K): one loop, without scores in memory.
- The axis of a normalization is a vector; with a scalar it is not fused.

Layer normalization and residual sums are float32 in every precision: the plugin lowers only products.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from openvino import opset15 as ops

LAYER_NORM_EPSILON: Final = 1e-12
MASKED_SCORE: Final = -1e9  # as in `electra_serve.model.attention`
# activation in `presets.config.HIDDEN_ACTIVATIONS` → OpenVINO's name
GELU: Final = {"gelu_tanh": "tanh", "gelu": "erf"}

Tensor = Any  # a node of the graph or one of its outputs; OpenVINO has no type for either


def integers(values: ArrayLike) -> Tensor:
    """Returns an int32 constant."""
    return ops.constant(np.asarray(values, np.int32))


def weight(values: ArrayLike) -> Tensor:
    """Returns a float32 constant."""
    return ops.constant(np.ascontiguousarray(values, np.float32))


def int8_weight(values: NDArray[np.float32]) -> Tensor:
    """Returns (O, D) weights rounded to int8 with a scale per row, as float32; OpenVINO keeps the int8 constant."""
    scale = np.maximum(np.abs(values).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)  # (O, 1)
    rounded = np.round(values / scale).astype(np.int8)
    return ops.multiply(ops.convert(ops.constant(rounded), "f32"), weight(scale))


def matmul(a: Tensor, b: Tensor, *, transpose_b: bool = False) -> Tensor:
    """Multiplies (…, M, D) by (…, D, O), or by (…, O, D) if `transpose_b`, to (…, M, O)."""
    return ops.matmul(a, b, transpose_a=False, transpose_b=transpose_b)


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """Reshapes; one axis may be -1."""
    return ops.reshape(x, shape, special_zero=False)


def take(x: Tensor, positions: Tensor) -> Tensor:
    """Takes `positions` (R, Q) of each row of (R, P, …): (R, Q, …)."""
    return ops.gather(x, positions, integers(1), batch_dims=1)


def size(x: Tensor, axis: int) -> Tensor:
    """Returns the length of an axis: (1,) int32."""
    return ops.gather(ops.shape_of(x, output_type="i32"), integers([axis]), integers(0))


def dense(x: Tensor, kernel: NDArray[np.float32], bias: NDArray[np.float32], *, int8: bool = False) -> Tensor:
    """Maps (M, D) to (M, O) by a kernel (D, O) and a bias (O,)."""
    # (O, D): of a (D, O) constant, each compiled model would keep a transposed copy.
    constant = int8_weight(kernel.T) if int8 else weight(kernel.T)
    return ops.add(matmul(x, constant, transpose_b=True), weight(bias[None]))


def precise_dense(x: Tensor, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> Tensor:
    """Computes `dense` in float32 in every precision, for few outputs: element by element, (M, O, D)."""
    products = ops.multiply(ops.unsqueeze(x, integers([1])), weight(kernel.T[None]))
    # One term of each sum: OpenVINO 2026.4 fuses a bias behind the sum wrongly, and adds the first one everywhere.
    first = np.zeros_like(kernel.T)
    first[:, 0] = bias
    return ops.reduce_sum(ops.add(products, weight(first[None])), integers([2]))


def layer_norm(x: Tensor, gamma: NDArray[np.float32], beta: NDArray[np.float32]) -> Tensor:
    """Normalizes the last axis."""
    normal = ops.mvn(x, integers([-1]), normalize_variance=True, eps=LAYER_NORM_EPSILON, eps_mode="INSIDE_SQRT")
    return ops.add(ops.multiply(normal, weight(gamma)), weight(beta))


def attention_bias(query_ids: Tensor, key_ids: Tensor) -> Tensor:
    """Maps (R, Q) and (R, P) ids to (R, 1, Q, P): 0 if equal, else `MASKED_SCORE`."""
    equal = ops.equal(ops.unsqueeze(query_ids, integers([1, 3])), ops.unsqueeze(key_ids, integers([1, 2])))
    return ops.select(equal, weight(0.0), weight(MASKED_SCORE))


def split_heads(x: Tensor, rows: Tensor, length: Tensor, parts: int, heads: int, head_dim: int) -> list[Tensor]:
    """Splits (R·P, parts·N·K) into `parts` tensors of (R, N, P, K), by one transposition."""
    shape = ops.concat([rows, length, integers([parts, heads, head_dim])], 0)
    split = ops.transpose(reshape(x, shape), integers([2, 0, 3, 1, 4]))  # (parts, R, N, P, K)
    return [ops.squeeze(part, integers([0])).output(0) for part in ops.split(split, integers(0), parts).outputs()]


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, width: int) -> Tensor:
    """Maps scaled queries (R, N, Q, K), keys and values (R, N, P, K) and bias (R, 1, Q, P) to (R·Q, D)."""
    scores = ops.add(matmul(query, key, transpose_b=True), bias)  # (R, N, Q, P)
    context = matmul(ops.softmax(scores, 3), value)  # (R, N, Q, K)
    return reshape(ops.transpose(context, integers([0, 2, 1, 3])), integers([-1, width]))
