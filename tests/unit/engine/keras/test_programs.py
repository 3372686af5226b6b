"""Two programs make every set of outputs, and only what is asked for leaves them."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest

from electra_serve.engine.keras.programs import PROGRAMS, program_of, stack_inputs, to_model_output
from electra_serve.tensors import TOKEN_OUTPUTS, Batch, Output, Outputs

SUBSETS = [frozenset(chosen) for chosen in chain.from_iterable(combinations(Output, size) for size in range(1, 5))]


@pytest.mark.parametrize("outputs", SUBSETS, ids=lambda outputs: "+".join(sorted(outputs)))
def test_a_program_makes_what_it_is_chosen_for(outputs: Outputs) -> None:
    program = program_of(outputs)
    assert program in PROGRAMS
    assert outputs <= program
    assert bool(program & TOKEN_OUTPUTS) == bool(outputs & TOKEN_OUTPUTS)


def test_only_what_is_asked_for_is_taken_and_nothing_is_copied() -> None:
    made = {output.value: np.ones(2, np.float32) for output in Output}
    taken = to_model_output(made, frozenset({Output.CLS}))
    assert taken.cls_output is made["cls_output"]
    assert taken.sequence_output is taken.pooled_output is taken.mean_output is None


def test_inputs_are_one_array_in_the_order_that_programs_read() -> None:
    ids = np.arange(4, dtype=np.int32).reshape(2, 2)
    stacked = stack_inputs(Batch(ids, ids + 10, ids + 20))
    assert stacked.dtype == np.int32
    assert stacked.tolist() == [ids.tolist(), (ids + 10).tolist(), (ids + 20).tolist()]
