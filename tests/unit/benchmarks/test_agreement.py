from __future__ import annotations

import numpy as np
import pytest

from benchmarks.agreement import OUTPUTS, Agreement, Disagreement, compare, require_agreement
from benchmarks.encoders.base import PaddingEncoder
from benchmarks.encoders.questions import Encode
from benchmarks.workload import encodings
from electra_serve.tensors import Batch, ModelOutput, Outputs, RowOutput


def output(*, noise: float = 0.0) -> RowOutput:
    sequence = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32) + np.float32(noise)
    return RowOutput(sequence_output=sequence, pooled_output=sequence[0])


class Repeats(PaddingEncoder):
    """Returns the ids, and other values for padding."""

    def run_one(self, batch: Batch, outputs: Outputs) -> ModelOutput:
        states = np.where(batch.padding_mask == 0, -batch.shape.length, batch.token_ids).astype(np.float32)
        hidden = np.repeat(states[:, :, None], 8, axis=2)  # (R, P, H)
        return ModelOutput(sequence_output=hidden, pooled_output=hidden[:, :1])


def test_padding_does_not_count() -> None:
    sequences = encodings([5, 9, 3])
    together = Encode(sequences, OUTPUTS).answer(Repeats())
    alone = [found for sequence in sequences for found in Encode([sequence], OUTPUTS).answer(Repeats())]
    assert compare(together, alone).difference == 0


def test_the_largest_difference_is_found() -> None:
    assert compare([output(), output(noise=0.25)], [output(), output()]).difference == pytest.approx(0.25)


def test_what_is_missing_disagrees() -> None:
    with pytest.raises(Disagreement, match="pooled_output"):
        compare([RowOutput(sequence_output=output().sequence_output)], [output()])


@pytest.mark.parametrize(
    ("dtype", "agreement"), [("float32", Agreement(9e-4, 1.0)), ("bfloat16", Agreement(0.1, 0.9991))]
)
def test_what_is_close_passes(dtype: str, agreement: Agreement) -> None:
    require_agreement("it", dtype, agreement)


@pytest.mark.parametrize(
    ("dtype", "agreement"),
    [("float32", Agreement(1.1e-3, 1.0)), ("bfloat16", Agreement(0.0, 0.9989)), ("int8", Agreement(0.0, float("nan")))],
)
def test_what_is_not_does_not(dtype: str, agreement: Agreement) -> None:
    with pytest.raises(Disagreement, match="it must agree"):
        require_agreement("it", dtype, agreement)
