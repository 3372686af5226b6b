"""Two programs compute every set of outputs, and only requested outputs are returned."""

from __future__ import annotations

from itertools import chain, combinations

import keras
import numpy as np
import pytest

from electra_serve.engine.keras.programs import (
    PROGRAMS,
    STACKED,
    program_of,
    run_program,
    stack_inputs,
    to_model_output,
)
from electra_serve.model.backbone import ElectraBackbone
from electra_serve.model.outputs import PackedInputs, compute_outputs
from electra_serve.tensors import (
    ENCODER_OUTPUTS,
    TOKEN_OUTPUTS,
    Batch,
    BatchShape,
    Encoding,
    Output,
    Outputs,
    Placement,
)

SUBSETS = [
    frozenset(chosen)
    for chosen in chain.from_iterable(combinations(sorted(ENCODER_OUTPUTS), size) for size in range(1, 5))
]


@pytest.mark.parametrize("outputs", SUBSETS, ids=lambda outputs: "+".join(sorted(outputs)))
def test_a_program_makes_what_it_is_chosen_for(outputs: Outputs) -> None:
    program = program_of(outputs)
    assert program in PROGRAMS
    assert outputs <= program
    assert bool(program & TOKEN_OUTPUTS) == bool(outputs & TOKEN_OUTPUTS)


def test_only_what_is_asked_for_is_taken_and_nothing_is_copied() -> None:
    made = {output.value: np.ones(2, np.float32) for output in ENCODER_OUTPUTS}
    taken = to_model_output(made, frozenset({Output.CLS}))
    assert taken.cls_output is made["cls_output"]
    assert taken.sequence_output is taken.pooled_output is taken.mean_output is None


def test_inputs_are_two_arrays_in_the_order_that_programs_read() -> None:
    ids = np.arange(5, dtype=np.int32)
    sequence = Encoding(ids, ids % 2, np.array([1, 0, 1, 1, 1], np.int32), compute_length=5, real_tokens=4)
    places = [Placement(0, 1, 3, 5), Placement(1, 0, 0, 5)]
    batch = Batch.pack([sequence, sequence], places, BatchShape(2, 9))
    stacked, starts = stack_inputs(batch)
    assert (stacked.shape, starts.shape) == ((STACKED, 2, 9), (2, 2))
    assert stacked.dtype == starts.dtype == np.int32
    backbone = ElectraBackbone(60, 2, 2, 8, intermediate_dim=16)
    found = run_program(backbone, keras.ops.convert_to_tensor(stacked), starts, ENCODER_OUTPUTS)
    for output, expected in compute_outputs(backbone, PackedInputs.of(batch), ENCODER_OUTPUTS).items():
        np.testing.assert_array_equal(found[output.value], expected)
