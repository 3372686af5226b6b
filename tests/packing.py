"""Batches of one sequence per row, for tests that compare with models that know no others."""

from __future__ import annotations

from typing import Any

import numpy as np

from electra_serve.model.backbone import ElectraBackbone
from electra_serve.model.head import Head
from electra_serve.model.outputs import PackedInputs, compute_outputs
from electra_serve.tensors import POSITION_OUTPUTS, Batch, BatchShape, Encoding, Float32Array, IntArray, Output, Outputs


def pack_rows(
    token_ids: IntArray, segment_ids: IntArray, padding_mask: IntArray, *, shape: BatchShape | None = None
) -> Batch:
    """Makes each row of three (B, T) arrays a sequence in a row of its own, in a batch of `shape`; None: (B, T)."""
    rows, length = token_ids.shape
    arrays = [np.asarray(array, np.int32) for array in (token_ids, segment_ids, padding_mask)]
    sequences = [
        Encoding(ids, segments, mask, compute_length=length, real_tokens=int(mask.sum()))
        for ids, segments, mask in zip(*arrays, strict=True)
    ]
    return Batch.one_per_row(sequences, shape or BatchShape(rows, length))


def compute_rows(
    backbone: ElectraBackbone, batch: Batch, outputs: Outputs, head: Head | None = None
) -> dict[Output, Float32Array]:
    """Computes `outputs` of a batch from `pack_rows`: (B, T, …) or (B, …), as the model itself returns them."""
    computed: dict[Output, Any] = dict(compute_outputs(backbone, PackedInputs.of(batch), outputs, head=head))
    arrays = {output: np.asarray(tensor) for output, tensor in computed.items()}
    return {output: array if output in POSITION_OUTPUTS else array[:, 0] for output, array in arrays.items()}
