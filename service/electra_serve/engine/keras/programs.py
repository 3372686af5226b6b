"""Two programs for all sets of outputs: one computes every position, one only first positions in its last layer.

A program computes all outputs that its hidden states allow, since they cost little; only requested ones are copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from electra_serve.model.attention import Attend
from electra_serve.model.backbone import ElectraBackbone
from electra_serve.model.outputs import PackedInputs, compute_outputs
from electra_serve.tensors import ENGINE_OUTPUTS, TOKEN_OUTPUTS, Batch, Int32Array, ModelOutput, Outputs

EVERY_POSITION: Final[Outputs] = ENGINE_OUTPUTS
CLS_ALONE: Final[Outputs] = EVERY_POSITION - TOKEN_OUTPUTS
PROGRAMS: Final = (EVERY_POSITION, CLS_ALONE)  # identified by their outputs
STACKED: Final = 5  # number of (R, P) arrays


def program_of(outputs: Outputs) -> Outputs:
    """Returns the program that computes `outputs`."""
    return EVERY_POSITION if outputs & TOKEN_OUTPUTS else CLS_ALONE


def stack_inputs(batch: Batch) -> tuple[Int32Array, Int32Array]:
    """Returns the inputs of a program: (`STACKED`, R, P) and the starts, (R, S)."""
    arrays = (batch.token_ids, batch.segment_ids, batch.position_ids, batch.sequence_ids, batch.padding_mask)
    return np.stack(arrays), batch.starts


def run_program(
    backbone: ElectraBackbone, stacked: Any, starts: Any, outputs: Outputs, attend: Attend | None = None
) -> dict[str, Any]:
    """Computes `outputs` from the tensors of `stack_inputs`, by name; to be traced by an engine."""
    token_ids, segment_ids, position_ids, sequence_ids, padding_mask = (stacked[index] for index in range(STACKED))
    inputs = PackedInputs(token_ids, segment_ids, position_ids, sequence_ids, padding_mask, starts)
    return {output.value: tensor for output, tensor in compute_outputs(backbone, inputs, outputs, attend).items()}


def to_model_output(computed: Mapping[str, Any], outputs: Outputs) -> ModelOutput:
    """Selects `outputs`, without a copy if they are on the host."""
    return ModelOutput(**{output.value: np.asarray(computed[output.value]) for output in outputs})
