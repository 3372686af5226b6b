"""What an engine traces: from ids to just the outputs that are asked for.

Nothing here depends on a shape in Python, so one trace serves every batch shape. Where no output needs every
position, the last layer computes position 0 alone; it still attends to all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from keras import ops

from electra_serve.model.attention import Attend, Tensor, mask_to_bias
from electra_serve.tensors import TOKEN_OUTPUTS, Output, Outputs

if TYPE_CHECKING:
    from electra_serve.model.backbone import ElectraBackbone


def compute_outputs(
    backbone: ElectraBackbone,
    token_ids: Tensor,
    segment_ids: Tensor,
    padding_mask: Tensor,
    outputs: Outputs,
    attend: Attend | None = None,
) -> dict[Output, Tensor]:
    """Encodes a batch, in inference mode.

    Args:
        backbone: The model.
        token_ids: (B, S) integers.
        segment_ids: (B, S) integers.
        padding_mask: (B, S) integers, 1 for positions that count, 0 for others.
        outputs: What to compute; at least one.
        attend: Fused attention of the backend's own; None: as Keras has it.

    Returns:
        Each of `outputs` and nothing else: see `read_outputs`.
    """
    hidden = encode(backbone, token_ids, segment_ids, padding_mask, cls_only=not outputs & TOKEN_OUTPUTS, attend=attend)
    return read_outputs(backbone, hidden, padding_mask, outputs)


def encode(
    backbone: ElectraBackbone,
    token_ids: Tensor,
    segment_ids: Tensor,
    padding_mask: Tensor,
    *,
    cls_only: bool,
    attend: Attend | None = None,
) -> Tensor:
    """The last layer's hidden states, by far the larger part of the work.

    Args:
        backbone: The model.
        token_ids: (B, S) integers.
        segment_ids: (B, S) integers.
        padding_mask: (B, S) integers, 0 or 1.
        cls_only: Whether the last layer computes position 0 alone.
        attend: Fused attention of the backend's own.

    Returns:
        (B, S, D), or (B, 1, D) where `cls_only`.
    """
    hidden = backbone.embed(token_ids, segment_ids)
    bias = mask_to_bias(padding_mask)
    *first, last = backbone.transformer_layers
    for layer in first:
        hidden = layer(hidden, attention_bias=bias, training=False, attend=attend)
    return last(hidden, attention_bias=bias, training=False, query_rows=1 if cls_only else None, attend=attend)


def read_outputs(
    backbone: ElectraBackbone, hidden: Tensor, padding_mask: Tensor, outputs: Outputs
) -> dict[Output, Tensor]:
    """Makes outputs of hidden states.

    Args:
        backbone: The model.
        hidden: From `encode`.
        padding_mask: (B, S) integers, 0 or 1.
        outputs: What to make; those in `TOKEN_OUTPUTS` need `hidden` at every position.

    Returns:
        Each of `outputs` and nothing else, float32: shapes as in `electra_serve.tensors.ModelOutput`. At masked
        positions `sequence_output` is 0, and `mean_output` leaves them out; `cls_output` and `pooled_output` are of
        position 0 even where that is masked.
    """
    compute: dict[Output, Callable[[], Tensor]] = {
        Output.SEQUENCE: lambda: _float32(hidden) * _weights(padding_mask),
        Output.POOLED: lambda: _float32(backbone.pool(hidden)),
        Output.CLS: lambda: _float32(hidden[:, 0, :]),
        Output.MEAN: lambda: _mean(_float32(hidden), _weights(padding_mask)),
    }
    return {output: compute[output]() for output in Output if output in outputs}


def _weights(padding_mask: Tensor) -> Tensor:
    """(B, S) 0 or 1 to (B, S, 1) float32."""
    return ops.cast(padding_mask, "float32")[:, :, None]


def _mean(hidden: Tensor, weights: Tensor) -> Tensor:
    """Mean over the positions that count: (B, S, D) and (B, S, 1) to (B, D)."""
    return ops.sum(hidden * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1.0)


def _float32(tensor: Tensor) -> Tensor:
    return ops.cast(tensor, "float32")
