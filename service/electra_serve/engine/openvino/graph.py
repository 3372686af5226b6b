"""`ElectraBackbone` as an OpenVINO graph, drawn from a preset's weights.

It is the model of `electra_serve.model.backbone` a second time, on purpose: drawn by hand, the graph is what OpenVINO
runs fastest, a start from it needs neither Keras nor TensorFlow, and the contract suite holds the two to the same
numbers.

    token_ids, segment_ids, padding_mask  (B, S) int32     positions  (1,) int32
      └ embeddings ─ norm ─ projection ─ layer ×(L-1) ─ last layer ┬ sequence_output  (B, Q, D), zeros where masked
                                                                   ├ mean_output      (B, D)
                                                                   ├ cls_output       (B, D)
                                                                   └ pooled_output    (B, D)

Q is `positions`, 1 or S: of how many positions the last layer computes its result. With 1 only [CLS] is computed, and
only `cls_output` and `pooled_output` mean anything. B and S are free.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15 as ops

from electra_serve.engine.openvino.layers import (
    GELU,
    Tensor,
    attend,
    dense,
    first,
    integers,
    layer_norm,
    mask_to_bias,
    reshape,
    split_heads,
    weight,
)
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.weight_files.names import pooler_paths
from electra_serve.presets.weights import read_weights
from electra_serve.tensors import Output

IDS = ("token_ids", "segment_ids", "padding_mask")
POSITIONS = "positions"

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Kernel (inputs, outputs) and bias, or gamma and beta."""


def draw_graph(preset: PresetFolder, *, load_weights: bool, int8: bool = False) -> ov.Model:
    """The graph of `preset`.

    Args:
        preset: Its architecture and weights.
        load_weights: False for random weights, the same as every engine's.
        int8: Round the weights of dense layers to int8. Embeddings, norms and attention stay as they are.

    Raises:
        PresetError: A weight file is not what it should be.
    """
    weights = {
        path: np.asarray(values, np.float32)
        for path, values in read_weights(preset, preset.config, load_weights=load_weights)
    }
    return _Encoder(preset.config, weights, int8=int8).draw()


class _Encoder:
    """Draws one encoder; what all its layers share is kept here."""

    def __init__(self, config: BackboneConfig, weights: Mapping[str, NDArray[np.float32]], *, int8: bool) -> None:
        self._config = config
        self._dense = partial(dense, int8=int8)
        self._weights = weights
        self._head_dim = config.hidden_dim // config.num_heads
        self._inputs = {name: _parameter(name, [-1, -1]) for name in IDS}
        self._positions = _parameter(POSITIONS, [1])  # Q
        shape = ops.shape_of(self._inputs["token_ids"], output_type="i32")
        self._batch, self._length = (ops.gather(shape, integers([axis]), integers(0)) for axis in (0, 1))  # (1,)
        self._bias = mask_to_bias(self._inputs["padding_mask"])  # (B, 1, 1, S)

    def draw(self) -> ov.Model:
        x = self._embeddings()  # (B·S, D)
        for layer in range(self._config.num_layers - 1):
            x = self._layer(layer, x)
        hidden = self._last_layer(self._config.num_layers - 1, x)  # (B, Q, D)
        outputs = self._outputs(hidden)
        for name, output in outputs.items():
            output.output(0).set_names({name.value})
        return ov.Model(list(outputs.values()), [*self._inputs.values(), self._positions], "electra")

    def _embeddings(self) -> Tensor:
        rows = [
            ops.gather(self._table("reversible_embedding"), self._inputs["token_ids"], integers(0)),  # (B, S, E)
            first(self._table("position_embedding"), self._length, axis=0),  # (S, E)
            ops.gather(self._table("embedding"), self._inputs["segment_ids"], integers(0)),  # (B, S, E)
        ]
        x = layer_norm(ops.add(ops.add(rows[0], rows[1]), rows[2]), *self._pair("layer_normalization"))
        x = reshape(x, integers([-1, self._config.embedding_dim]))  # (B·S, E)
        projected = self._config.embedding_dim != self._config.hidden_dim
        return self._dense(x, *self._pair("dense")) if projected else x

    def _layer(self, index: int, x: Tensor) -> Tensor:
        """(B·S, D) to (B·S, D)."""
        names = ("query", "key", "value")
        projected = self._dense(x, *self._projection(index, names))  # (B·S, 3·D)
        query, key, value = self._heads(projected, self._length, len(names))
        return self._after_attention(index, x, attend(query, key, value, self._bias, self._config.hidden_dim))

    def _last_layer(self, index: int, x: Tensor) -> Tensor:
        """(B·S, D) to (B, Q, D): keys and values of all positions, queries of the first Q."""
        width = integers([self._config.hidden_dim])
        whole = reshape(x, ops.concat([self._batch, self._length, width], 0))  # (B, S, D)
        rows = first(whole, self._positions, axis=1)  # (B, Q, D)
        rows = reshape(rows, integers([-1, self._config.hidden_dim]))  # (B·Q, D)
        (query,) = self._heads(self._dense(rows, *self._projection(index, ("query",))), self._positions, 1)
        key, value = self._heads(self._dense(x, *self._projection(index, ("key", "value"))), self._length, 2)
        encoded = self._after_attention(index, rows, attend(query, key, value, self._bias, self._config.hidden_dim))
        return reshape(encoded, ops.concat([self._batch, self._positions, width], 0))  # (B, Q, D)

    def _after_attention(self, index: int, x: Tensor, attended: Tensor) -> Tensor:
        """Residual, norm, feed-forward, residual, norm, on (M, D) rows."""
        group = _group(index)
        attended = self._dense(attended, *self._flat(f"{group}/_self_attention_layer/output_dense"))
        x = layer_norm(ops.add(x, attended), *self._pair(f"{group}/_self_attention_layer_norm"))
        inner = self._dense(x, *self._pair(f"{group}/_feedforward_intermediate_dense"))  # (M, I)
        inner = ops.gelu(inner, GELU[self._config.hidden_activation])
        outer = self._dense(inner, *self._pair(f"{group}/_feedforward_output_dense"))  # (M, D)
        return layer_norm(ops.add(x, outer), *self._pair(f"{group}/_feedforward_layer_norm"))

    def _outputs(self, hidden: Tensor) -> dict[Output, Tensor]:
        """See `electra_serve.model.outputs.read_outputs`."""
        mask = first(self._inputs["padding_mask"], self._positions, axis=1)  # (B, Q)
        weights = ops.unsqueeze(ops.convert(mask, "f32"), integers([2]))  # (B, Q, 1)
        masked = ops.multiply(hidden, weights)  # (B, Q, D)
        count = ops.maximum(ops.reduce_sum(weights, integers([1])), weight(1.0))  # (B, 1)
        cls = ops.squeeze(first(hidden, integers([1]), axis=1), integers([1]))  # (B, D)
        pooler = pooler_paths(self._config)[0].split("/")[1]
        return {
            Output.SEQUENCE: masked,
            Output.POOLED: ops.tanh(self._dense(cls, *self._pair(pooler))),
            Output.CLS: cls,
            Output.MEAN: ops.divide(ops.reduce_sum(masked, integers([1])), count),
        }

    def _heads(self, x: Tensor, length: Tensor, parts: int) -> list[Tensor]:
        return split_heads(x, self._batch, length, parts, self._config.num_heads, self._head_dim)

    def _projection(self, index: int, names: tuple[str, ...]) -> Pair:
        """Some of query, key and value side by side, (D, len·D) and (len·D,); queries come scaled."""
        pairs = [self._flat(f"{_group(index)}/_self_attention_layer/{name}_dense") for name in names]
        scales = [np.float32(self._head_dim**-0.5 if name == "query" else 1.0) for name in names]
        kernels = [kernel * scale for (kernel, _), scale in zip(pairs, scales, strict=True)]
        biases = [bias * scale for (_, bias), scale in zip(pairs, scales, strict=True)]
        return np.concatenate(kernels, axis=1), np.concatenate(biases)

    def _flat(self, group: str) -> Pair:
        """An attention layer's kernel and bias, their heads side by side: (D, D) and (D,)."""
        kernel, bias = self._pair(group)
        return kernel.reshape(self._config.hidden_dim, -1), bias.reshape(-1)

    def _pair(self, group: str) -> Pair:
        return self._weights[f"layers/{group}/vars/0"], self._weights[f"layers/{group}/vars/1"]

    def _table(self, group: str) -> Tensor:
        return weight(self._weights[f"layers/{group}/vars/0"])


def _group(index: int) -> str:
    return f"transformer_encoder_{index}" if index else "transformer_encoder"


def _parameter(name: str, shape: list[int]) -> Tensor:
    parameter = ops.parameter(shape, ov.Type.i32, name=name)
    parameter.output(0).set_names({name})
    return parameter
