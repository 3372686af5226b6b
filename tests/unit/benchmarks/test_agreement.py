from __future__ import annotations

import numpy as np
import pytest

from benchmarks.agreement import Agreement, Disagreement, compare, require_agreement
from electra_serve.tensors import ModelOutput


def output(length: int = 3, *, noise: float = 0.0, padding: float = 0.0) -> ModelOutput:
    generator = np.random.default_rng(0)
    sequence = generator.standard_normal((1, 2, 8)).astype(np.float32) + np.float32(noise)
    padded = np.full((1, length, 8), padding, np.float32)
    padded[:, :2] = sequence
    return ModelOutput(sequence_output=padded, pooled_output=sequence[:, 0])


def test_padding_does_not_count() -> None:
    assert compare(output(3, padding=7.0), output(5), [2]).difference == 0


def test_rows_of_padding_do_not_count() -> None:
    one = output()
    assert one.pooled_output is not None
    two = ModelOutput(sequence_output=one.sequence_output, pooled_output=np.repeat(one.pooled_output, 2, axis=0))
    assert compare(two, one, [2]).difference == 0


def test_the_largest_difference_is_found() -> None:
    assert compare(output(noise=0.25), output(), [2]).difference == pytest.approx(0.25)


def test_what_is_missing_disagrees() -> None:
    with pytest.raises(Disagreement, match="pooled_output"):
        compare(ModelOutput(sequence_output=output().sequence_output), output(), [2])


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
