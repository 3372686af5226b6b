"""Two programs for all sets of outputs: one computes every position, one only first positions in its last layer.

A program computes all outputs that its hidden states allow, those of a head included. They take less than a hundredth
of its time, and one more program would be compiled for each shape. Only requested outputs are copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from electra_serve.model.attention import Attend
from electra_serve.model.loading import LoadedEncoder
from electra_serve.model.outputs import PackedInputs, compute_outputs
from electra_serve.tensors import TOKEN_OUTPUTS, Batch, Int32Array, ModelOutput, Outputs

STACKED: Final = 5  # number of (R, P) arrays


def programs_of(served: Outputs) -> tuple[Outputs, Outputs]:
    """Returns the programs of a model with the outputs `served`; their outputs identify them."""
    return served, served - TOKEN_OUTPUTS


def program_of(outputs: Outputs, served: Outputs) -> Outputs:
    """Returns the program that computes `outputs`; raises ValueError for an output that the model does not have."""
    if not outputs <= served:
        raise ValueError(f"outputs must be among {', '.join(sorted(served))}; got {', '.join(sorted(outputs))}")
    every_position, first_positions = programs_of(served)
    return every_position if outputs & TOKEN_OUTPUTS else first_positions


def stack_inputs(batch: Batch) -> tuple[Int32Array, Int32Array]:
    """Returns the inputs of a program: (`STACKED`, R, P) and the starts, (R, S)."""
    arrays = (batch.token_ids, batch.segment_ids, batch.position_ids, batch.sequence_ids, batch.padding_mask)
    return np.stack(arrays), batch.starts


def run_program(
    encoder: LoadedEncoder, stacked: Any, starts: Any, outputs: Outputs, attend: Attend | None = None
) -> dict[str, Any]:
    """Computes `outputs` from the tensors of `stack_inputs`, by name; to be traced by an engine."""
    token_ids, segment_ids, position_ids, sequence_ids, padding_mask = (stacked[index] for index in range(STACKED))
    inputs = PackedInputs(token_ids, segment_ids, position_ids, sequence_ids, padding_mask, starts)
    computed = compute_outputs(encoder.backbone, inputs, outputs, attend, encoder.head)
    return {output.value: tensor for output, tensor in computed.items()}


def to_model_output(computed: Mapping[str, Any], outputs: Outputs) -> ModelOutput:
    """Selects `outputs`, without a copy if they are on the host."""
    return ModelOutput(**{output.value: np.asarray(computed[output.value]) for output in outputs})
