"""Traced computation of an engine: from a packed batch to the requested outputs.

Shapes are dynamic, so one trace serves every shape: R rows, P positions, S slots as in `electra_serve.tensors.Batch`,
and D, the hidden width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Self

from keras import ops

from electra_serve.model.attention import Attend, Tensor, sequence_bias
from electra_serve.tensors import HEAD_OUTPUTS, TOKEN_OUTPUTS, Batch, Output, Outputs

if TYPE_CHECKING:
    from electra_serve.model.backbone import ElectraBackbone
    from electra_serve.model.head import Head


class PackedInputs(NamedTuple):
    """The arrays of a `Batch`, int32, as tensors of Keras' backend."""

    token_ids: Tensor  # (R, P)
    segment_ids: Tensor  # (R, P)
    position_ids: Tensor  # (R, P)
    sequence_ids: Tensor  # (R, P)
    padding_mask: Tensor  # (R, P)
    starts: Tensor  # (R, S)

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Converts the arrays of `batch`."""
        return cls(*(ops.convert_to_tensor(getattr(batch, name)) for name in cls._fields))

    @property
    def key_ids(self) -> Tensor:
        """(R, P) sequence ids of keys; 0 for masked positions and padding."""
        return self.sequence_ids * self.padding_mask

    def at_starts(self, values: Tensor) -> Tensor:
        """Takes `values` at the first position of each slot: (R, P, …) to (R, S, …)."""
        rows, length = ops.shape(self.token_ids)
        index = self.starts + ops.arange(rows, dtype="int32")[:, None] * length  # (R, S)
        return ops.take(ops.reshape(values, (-1, *values.shape[2:])), index, axis=0)


def compute_outputs(
    backbone: ElectraBackbone,
    inputs: PackedInputs,
    outputs: Outputs,
    attend: Attend | None = None,
    head: Head | None = None,
) -> dict[Output, Tensor]:
    """Encodes a packed batch in inference mode and returns exactly `outputs`, as float32.

    Masked positions are 0 in `sequence_output` and `token_logits`, and excluded from `mean_output`.
    """
    hidden = _encode(backbone, inputs, attend) if outputs & TOKEN_OUTPUTS else None  # (R, P, D)
    first = _encode_starts(backbone, inputs, attend) if hidden is None else inputs.at_starts(hidden)  # (R, S, D)
    found = _read(backbone, inputs, outputs, hidden, first)
    if outputs & HEAD_OUTPUTS:
        found |= _label(backbone, head, inputs, outputs & HEAD_OUTPUTS, hidden, first)
    return found


def _encode(backbone: ElectraBackbone, inputs: PackedInputs, attend: Attend | None) -> Tensor:
    hidden, bias = _encode_but_last(backbone, inputs, attend)
    return backbone.transformer_layers[-1](hidden, attention_bias=bias, training=False, attend=attend)  # (R, P, D)


def _encode_starts(backbone: ElectraBackbone, inputs: PackedInputs, attend: Attend | None) -> Tensor:
    hidden, _ = _encode_but_last(backbone, inputs, attend)
    bias = sequence_bias(inputs.at_starts(inputs.sequence_ids), inputs.key_ids)  # (R, 1, S, P)
    queries = inputs.at_starts(hidden)  # (R, S, D)
    return backbone.transformer_layers[-1](hidden, attention_bias=bias, training=False, queries=queries)  # (R, S, D)


def _encode_but_last(backbone: ElectraBackbone, inputs: PackedInputs, attend: Attend | None) -> tuple[Tensor, Tensor]:
    """Returns the input of the last layer, (R, P, D), and the attention bias, (R, 1, P, P)."""
    hidden = backbone.embed(inputs.token_ids, inputs.segment_ids, inputs.position_ids)
    bias = sequence_bias(inputs.sequence_ids, inputs.key_ids)
    for layer in backbone.transformer_layers[:-1]:
        hidden = layer(hidden, attention_bias=bias, training=False, attend=attend)
    return hidden, bias


def _read(
    backbone: ElectraBackbone, inputs: PackedInputs, outputs: Outputs, hidden: Tensor | None, first: Tensor
) -> dict[Output, Tensor]:
    """Computes outputs from hidden states, (R, P, D), and those of first positions, (R, S, D)."""
    compute: dict[Output, Callable[[], Tensor]] = {
        Output.SEQUENCE: lambda: _unmasked(hidden, inputs),
        Output.POOLED: lambda: _float32(backbone.pooled_dense(first)),
        Output.CLS: lambda: _float32(first),
        Output.MEAN: lambda: _means(_float32(hidden), inputs),
    }
    return {output: compute[output]() for output in compute if output in outputs}


def _label(
    backbone: ElectraBackbone,
    head: Head | None,
    inputs: PackedInputs,
    outputs: Outputs,
    hidden: Tensor | None,
    first: Tensor,
) -> dict[Output, Tensor]:
    """Computes the logits of `head`, whose output must be the only one in `outputs`."""
    if head is None or outputs != {head.head.output}:
        raise ValueError(f"outputs must be those of the model; got {', '.join(sorted(outputs))}")
    if head.head.output is Output.LOGITS:
        return {Output.LOGITS: head(backbone.pooled_dense(first) if head.head.uses_pooler else first)}
    return {Output.TOKEN_LOGITS: _unmasked(head(hidden), inputs)}


def _unmasked(values: Tensor, inputs: PackedInputs) -> Tensor:
    return ops.where(ops.equal(inputs.padding_mask, 1)[:, :, None], _float32(values), 0.0)


def _means(hidden: Tensor, inputs: PackedInputs) -> Tensor:
    slots = ops.arange(ops.shape(inputs.starts)[1], dtype="int32") + 1  # (S,)
    belongs = _float32(ops.equal(slots[None, :, None], inputs.key_ids[:, None, :]))  # (R, S, P)
    # One product with a 0/1 matrix gives the means of all slots.
    return ops.matmul(belongs, hidden) / ops.maximum(ops.sum(belongs, axis=-1, keepdims=True), 1.0)  # (R, S, D)


def _float32(tensor: Tensor) -> Tensor:
    return ops.cast(tensor, "float32")
