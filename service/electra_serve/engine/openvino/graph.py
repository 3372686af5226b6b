"""`ElectraBackbone` as an OpenVINO graph, built from a preset's weights.

    token_ids, segment_ids, position_ids, sequence_ids, padding_mask  (R, P) int32
      └ embeddings ─ norm ─ projection ─ layer ×(L-1) ─ last layer ┬ sequence_output  (R, Q, D), zeros where masked
                                                                   ├ mean_output      (R, S, D)
    queries  (R, Q) int32     starts  (R, S) int32                 ├ cls_output       (R, S, D)
                                                                   ├ pooled_output    (R, S, D)
    labeled  (R, N) int32, only with a head                        └ logits or token_logits  (R, N, L)

It repeats `electra_serve.model.backbone`, since OpenVINO runs a graph of its own operations fastest
(docs/decisions/0009). The last layer computes only the positions `queries` of each row.
`starts` are the indices of first positions among them. `labeled` are those that a head computes, none if its output is
not requested. R, P, Q, S and N are dynamic.
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
    attention_bias,
    dense,
    integers,
    layer_norm,
    matmul,
    precise_dense,
    reshape,
    size,
    split_heads,
    take,
    weight,
)
from electra_serve.presets.config import BackboneConfig
from electra_serve.presets.folder import PresetFolder
from electra_serve.presets.heads import HeadConfig
from electra_serve.presets.weight_files.names import pooler_paths
from electra_serve.presets.weights import read_head_weights, read_weights
from electra_serve.tensors import Output

POSITION_INPUTS = ("token_ids", "segment_ids", "position_ids", "sequence_ids", "padding_mask")
QUERIES = "queries"
STARTS = "starts"
LABELED = "labeled"
MAX_RANKED_LABELS = 8  # more would take too much memory element by element

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]  # kernel (inputs, outputs) and bias, or gamma and beta


def build_graph(preset: PresetFolder, *, load_weights: bool, int8: bool = False) -> ov.Model:
    """Builds the graph of `preset`; `int8` rounds the weights of dense layers, and nothing else."""
    weights = {
        path: np.asarray(values, np.float32)
        for path, values in read_weights(preset, preset.config, load_weights=load_weights)
    }
    weights |= {
        path: np.asarray(values, np.float32) for path, values in read_head_weights(preset, load_weights=load_weights)
    }
    return _Encoder(preset.config, preset.head, weights, int8=int8).build()


class _Encoder:
    """Builds one encoder; holds the inputs and biases that its layers share."""

    def __init__(
        self,
        config: BackboneConfig,
        head: HeadConfig | None,
        weights: Mapping[str, NDArray[np.float32]],
        *,
        int8: bool,
    ) -> None:
        self._config = config
        self._head = head
        self._dense = partial(dense, int8=int8)
        self._weights = weights
        self._head_dim = config.hidden_dim // config.num_heads
        self._inputs = {name: _parameter(name) for name in (*POSITION_INPUTS, QUERIES, STARTS)}
        if head is not None:
            self._inputs[LABELED] = _parameter(LABELED)
        self._queries, self._starts = self._inputs[QUERIES], self._inputs[STARTS]
        self._rows, self._length = (size(self._inputs["token_ids"], axis) for axis in (0, 1))  # (1,) each
        self._query_count, self._slots = (size(positions, 1) for positions in (self._queries, self._starts))
        # Masked keys get sequence id 0, as padding has. Padding attends to them, so no softmax is empty.
        keys = ops.multiply(self._inputs["sequence_ids"], self._inputs["padding_mask"])  # (R, P)
        self._query_keys = take(keys, self._queries)  # (R, Q)
        self._bias = attention_bias(self._inputs["sequence_ids"], keys)  # (R, 1, P, P)
        self._last_bias = attention_bias(take(self._inputs["sequence_ids"], self._queries), keys)  # (R, 1, Q, P)

    def build(self) -> ov.Model:
        x = self._embeddings()  # (R·P, D)
        for layer in range(self._config.num_layers - 1):
            x = self._layer(layer, x)
        hidden = self._last_layer(self._config.num_layers - 1, x)  # (R, Q, D)
        outputs = self._outputs(hidden)
        for name, output in outputs.items():
            output.output(0).set_names({name.value})
        return ov.Model(list(outputs.values()), list(self._inputs.values()), "electra")

    def _embeddings(self) -> Tensor:
        tokens, positions, segments = (
            ops.gather(self._table(table), self._inputs[ids], integers(0))  # (R, P, E)
            for table, ids in (
                ("reversible_embedding", "token_ids"),
                ("position_embedding", "position_ids"),
                ("embedding", "segment_ids"),
            )
        )
        x = layer_norm(ops.add(ops.add(tokens, positions), segments), *self._pair("layer_normalization"))
        x = reshape(x, integers([-1, self._config.embedding_dim]))  # (R·P, E)
        projected = self._config.embedding_dim != self._config.hidden_dim
        return self._dense(x, *self._pair("dense")) if projected else x

    def _layer(self, index: int, x: Tensor) -> Tensor:
        names = ("query", "key", "value")
        projected = self._dense(x, *self._projection(index, names))  # (R·P, 3·D)
        query, key, value = self._heads(projected, self._length, len(names))
        attended = attend(query, key, value, self._bias, self._config.hidden_dim)
        return self._after_attention(index, x, attended)  # (R·P, D)

    def _last_layer(self, index: int, x: Tensor) -> Tensor:
        """Maps (R·P, D) to (R, Q, D): keys and values of all positions, queries of `queries`."""
        computed = take(self._by_row(x, self._length), self._queries)  # (R, Q, D)
        computed = reshape(computed, integers([-1, self._config.hidden_dim]))  # (R·Q, D)
        (query,) = self._heads(self._dense(computed, *self._projection(index, ("query",))), self._query_count, 1)
        key, value = self._heads(self._dense(x, *self._projection(index, ("key", "value"))), self._length, 2)
        attended = attend(query, key, value, self._last_bias, self._config.hidden_dim)
        return self._by_row(self._after_attention(index, computed, attended), self._query_count)

    def _after_attention(self, index: int, x: Tensor, attended: Tensor) -> Tensor:
        group = _group(index)
        attended = self._dense(attended, *self._flat(f"{group}/_self_attention_layer/output_dense"))
        x = layer_norm(ops.add(x, attended), *self._pair(f"{group}/_self_attention_layer_norm"))
        inner = self._dense(x, *self._pair(f"{group}/_feedforward_intermediate_dense"))  # (M, I)
        inner = ops.gelu(inner, GELU[self._config.hidden_activation])
        outer = self._dense(inner, *self._pair(f"{group}/_feedforward_output_dense"))  # (M, D)
        return layer_norm(ops.add(x, outer), *self._pair(f"{group}/_feedforward_layer_norm"))

    def _outputs(self, hidden: Tensor) -> dict[Output, Tensor]:
        mask = ops.convert(take(self._inputs["padding_mask"], self._queries), "f32")  # (R, Q)
        cls = take(hidden, self._starts)  # (R, S, D)
        pooler = pooler_paths(self._config)[0].split("/")[1]
        pooled = ops.tanh(self._dense(reshape(cls, integers([-1, self._config.hidden_dim])), *self._pair(pooler)))
        outputs = {
            Output.SEQUENCE: ops.multiply(hidden, ops.unsqueeze(mask, integers([2]))),
            Output.POOLED: self._by_row(pooled, self._slots),
            Output.CLS: cls,
            Output.MEAN: self._means(hidden),
        }
        if self._head is not None:
            outputs[self._head.output] = self._label(self._head, hidden, outputs[Output.POOLED], mask)
        return outputs

    def _label(self, head: HeadConfig, hidden: Tensor, pooled: Tensor, mask: Tensor) -> Tensor:
        """Returns the logits of the positions `labeled`, or of those slots if the head uses the pooler: (R, N, L)."""
        labeled = self._inputs[LABELED]
        x = take(pooled if head.uses_pooler else hidden, labeled)  # (R, N, D)
        x = reshape(x, integers([-1, self._config.hidden_dim]))  # (R·N, D)
        if head.has_dense:
            x = ops.gelu(dense(x, *self._head_pair("dense")), GELU[head.dense_activation(self._config)])
        # In bfloat16, scores of close candidates would be equal. Labels of positions are more, and are not ranked.
        ranked = head.output is Output.LOGITS and len(head.labels) <= MAX_RANKED_LABELS
        logits = (precise_dense if ranked else dense)(x, *self._head_pair("output"))  # (R·N, L)
        shape = ops.concat([self._rows, size(labeled, 1), integers([len(head.labels)])], 0)
        logits = reshape(logits, shape)
        if head.output is Output.LOGITS:
            return logits
        return ops.multiply(logits, ops.unsqueeze(take(mask, labeled), integers([2])))

    def _head_pair(self, layer: str) -> Pair:
        return self._weights[f"head/{layer}/vars/0"], self._weights[f"head/{layer}/vars/1"]

    def _means(self, hidden: Tensor) -> Tensor:
        """Maps (R, Q, D) to (R, S, D) by a product with a matrix that selects each slot's unmasked positions."""
        end = ops.add(ops.squeeze(self._slots, integers([0])), integers(1))
        ids = ops.unsqueeze(ops.range(integers(1), end, integers(1), "i32"), integers([0, 2]))  # (1, S, 1)
        picked = ops.convert(ops.equal(ids, ops.unsqueeze(self._query_keys, integers([1]))), "f32")  # (R, S, Q)
        count = ops.reduce_sum(picked, integers([2]), keep_dims=True)  # (R, S, 1)
        return ops.divide(matmul(picked, hidden), ops.maximum(count, weight(1.0)))

    def _by_row(self, x: Tensor, count: Tensor) -> Tensor:
        return reshape(x, ops.concat([self._rows, count, integers([self._config.hidden_dim])], 0))

    def _heads(self, x: Tensor, length: Tensor, parts: int) -> list[Tensor]:
        return split_heads(x, self._rows, length, parts, self._config.num_heads, self._head_dim)

    def _projection(self, index: int, names: tuple[str, ...]) -> Pair:
        pairs = [self._flat(f"{_group(index)}/_self_attention_layer/{name}_dense") for name in names]
        scales = [np.float32(self._head_dim**-0.5 if name == "query" else 1.0) for name in names]
        kernels = [kernel * scale for (kernel, _), scale in zip(pairs, scales, strict=True)]
        biases = [bias * scale for (_, bias), scale in zip(pairs, scales, strict=True)]
        return np.concatenate(kernels, axis=1), np.concatenate(biases)  # (D, len·D) and (len·D,)

    def _flat(self, group: str) -> Pair:
        kernel, bias = self._pair(group)
        return kernel.reshape(self._config.hidden_dim, -1), bias.reshape(-1)  # (D, D) and (D,)

    def _pair(self, group: str) -> Pair:
        return self._weights[f"layers/{group}/vars/0"], self._weights[f"layers/{group}/vars/1"]

    def _table(self, group: str) -> Tensor:
        return weight(self._weights[f"layers/{group}/vars/0"])


def _group(index: int) -> str:
    return f"transformer_encoder_{index}" if index else "transformer_encoder"


def _parameter(name: str) -> Tensor:
    parameter = ops.parameter([-1, -1], ov.Type.i32, name=name)  # two dynamic axes
    parameter.output(0).set_names({name})
    return parameter
