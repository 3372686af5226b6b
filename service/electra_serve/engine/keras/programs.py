"""Two programs serve every set of outputs: one computes every position, one whose last layer computes [CLS] alone.

A program makes all the outputs that its hidden states give. Next to the layers that costs nothing that can be measured,
and a set of outputs is then a choice of what to copy, not something to compile. What goes in is one array, so that one
transfer carries it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from electra_serve.tensors import TOKEN_OUTPUTS, Batch, Int32Array, ModelOutput, Output, Outputs

EVERY_POSITION: Final[Outputs] = frozenset(Output)
CLS_ALONE: Final[Outputs] = EVERY_POSITION - TOKEN_OUTPUTS
PROGRAMS: Final = (EVERY_POSITION, CLS_ALONE)
"""A program, by the outputs it makes."""


def program_of(outputs: Outputs) -> Outputs:
    """Which program makes `outputs`.

    Example:
        >>> program_of(frozenset({Output.POOLED})) == CLS_ALONE, program_of(frozenset({Output.MEAN})) == EVERY_POSITION
        (True, True)
    """
    return EVERY_POSITION if outputs & TOKEN_OUTPUTS else CLS_ALONE


def stack_inputs(batch: Batch) -> Int32Array:
    """What goes into a program: (3, B, S), of token ids, segment ids and mask."""
    return np.stack((batch.token_ids, batch.segment_ids, batch.padding_mask))


def to_model_output(computed: Mapping[str, Any], outputs: Outputs) -> ModelOutput:
    """Takes `outputs` of what a program made, by name, and copies nothing that is on the host already."""
    return ModelOutput(**{output.value: np.asarray(computed[output.value]) for output in outputs})
