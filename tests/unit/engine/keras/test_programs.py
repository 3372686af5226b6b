"""Two programs compute every set of outputs, and only requested outputs are returned."""

from __future__ import annotations

from itertools import chain, combinations

import keras
import numpy as np
import pytest

from electra_serve.engine.keras.programs import (
    STACKED,
    program_of,
    programs_of,
    run_program,
    stack_inputs,
    to_model_output,
)
from electra_serve.model.backbone import ElectraBackbone
from electra_serve.model.loading import LoadedEncoder
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
    for served in (ENCODER_OUTPUTS, ENCODER_OUTPUTS | {Output.LOGITS}, ENCODER_OUTPUTS | {Output.TOKEN_LOGITS}):
        assert program_of(outputs, served) in programs_of(served)
        assert outputs <= program_of(outputs, served)
    program = program_of(outputs, ENCODER_OUTPUTS)
    assert bool(program & TOKEN_OUTPUTS) == bool(outputs & TOKEN_OUTPUTS)


def test_logits_of_sequences_need_first_positions_only() -> None:
    served = ENCODER_OUTPUTS | {Output.LOGITS}
    assert program_of(frozenset({Output.LOGITS}), served) == {Output.LOGITS, Output.CLS, Output.POOLED}


def test_an_output_that_is_not_served_is_rejected() -> None:
    with pytest.raises(ValueError, match="outputs must be among"):
        program_of(frozenset({Output.LOGITS}), ENCODER_OUTPUTS)


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
    found = run_program(LoadedEncoder(backbone), keras.ops.convert_to_tensor(stacked), starts, ENCODER_OUTPUTS)
    for output, expected in compute_outputs(backbone, PackedInputs.of(batch), ENCODER_OUTPUTS).items():
        np.testing.assert_array_equal(found[output.value], expected)
