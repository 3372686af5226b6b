"""Two programs serve every set of outputs: one computes every position, one whose last layer computes [CLS] alone.

A program makes all the outputs that its hidden states give. Next to the layers that costs nothing that can be measured,
and a set of outputs is then a choice of what to copy, not something to compile. The arrays of one shape go in as one,
so that two transfers carry a batch. How many sequences it has is no part of a program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from electra_serve.model.attention import Attend
from electra_serve.model.backbone import ElectraBackbone
from electra_serve.model.outputs import PackedInputs, compute_outputs
from electra_serve.tensors import TOKEN_OUTPUTS, Batch, Int32Array, ModelOutput, Output, Outputs

EVERY_POSITION: Final[Outputs] = frozenset(Output)
CLS_ALONE: Final[Outputs] = EVERY_POSITION - TOKEN_OUTPUTS
PROGRAMS: Final = (EVERY_POSITION, CLS_ALONE)
"""A program, by the outputs it makes."""
STACKED: Final = 5
"""How many arrays of (R, P) go into a program."""


def program_of(outputs: Outputs) -> Outputs:
    """Which program makes `outputs`.

    Example:
        >>> program_of(frozenset({Output.POOLED})) == CLS_ALONE, program_of(frozenset({Output.MEAN})) == EVERY_POSITION
        (True, True)
    """
    return EVERY_POSITION if outputs & TOKEN_OUTPUTS else CLS_ALONE


def stack_inputs(batch: Batch) -> tuple[Int32Array, Int32Array]:
    """The two arrays that go into a program: (`STACKED`, R, P) and the (R, S) starts."""
    arrays = (batch.token_ids, batch.segment_ids, batch.position_ids, batch.sequence_ids, batch.padding_mask)
    return np.stack(arrays), batch.starts


def run_program(
    backbone: ElectraBackbone, stacked: Any, starts: Any, outputs: Outputs, attend: Attend | None = None
) -> dict[str, Any]:
    """Computes `outputs`, by name, from the tensors that `stack_inputs` made: for an engine to trace."""
    token_ids, segment_ids, position_ids, sequence_ids, padding_mask = (stacked[index] for index in range(STACKED))
    inputs = PackedInputs(token_ids, segment_ids, position_ids, sequence_ids, padding_mask, starts)
    return {output.value: tensor for output, tensor in compute_outputs(backbone, inputs, outputs, attend).items()}


def to_model_output(computed: Mapping[str, Any], outputs: Outputs) -> ModelOutput:
    """Takes `outputs` of what a program made, by name, and copies nothing that is on the host already."""
    return ModelOutput(**{output.value: np.asarray(computed[output.value]) for output in outputs})
