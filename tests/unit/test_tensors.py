"""Packing and cutting: nothing moves, nothing leaks from one row into another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.tensors import Batch, BatchShape, ModelOutput, Output, RowOutput
from tests.fakes import FakeEngine, encoding

rows = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=6)


@given(rows, st.integers(0, 3), st.integers(0, 3), st.integers(0, 4))
def test_pack_run_and_cut_give_back_each_row(ids: list[list[int]], more_rows: int, longer: int, tail: int) -> None:
    encodings = [encoding(*row, masked_tail=tail) for row in ids]
    shape = BatchShape(len(ids) + more_rows, max(map(len, ids)) + longer)
    batch = Batch.pack(encodings, shape)
    assert batch.shape == shape
    assert batch.padding_mask.sum() == sum(map(len, ids)) + more_rows
    output = FakeEngine().run(batch, frozenset(Output))
    for index, (row, one) in enumerate(zip(ids, encodings, strict=True)):
        cut = output.row(index, one, frozenset({Output.SEQUENCE, Output.MEAN}))
        assert cut.get(Output.SEQUENCE)[:, 0].tolist() == row + [0] * tail
        assert cut.get(Output.MEAN)[0] == pytest.approx(np.mean(row))
        assert cut.pooled_output is None


def test_positions_that_were_not_computed_are_added_when_an_output_is_read() -> None:
    row = ModelOutput(sequence_output=np.ones((1, 4, 3), np.float32)).row(
        0, encoding(1, 2, masked_tail=3), frozenset({Output.SEQUENCE})
    )
    assert row.sequence_output is not None
    assert row.sequence_output.shape == (2, 3)
    assert row.size(Output.SEQUENCE) == row.get(Output.SEQUENCE).size == 15
    np.testing.assert_array_equal(row.get(Output.SEQUENCE).sum(axis=1), [3, 3, 0, 0, 0])
    assert RowOutput(mean_output=np.ones(3, np.float32), length=5).size(Output.MEAN) == 3


def test_an_output_nobody_asked_for_is_not_there() -> None:
    with pytest.raises(KeyError, match="pooled_output"):
        RowOutput(cls_output=np.zeros(2, np.float32)).get(Output.POOLED)
    with pytest.raises(KeyError, match="did not compute"):
        ModelOutput().row(0, encoding(1), frozenset({Output.CLS}))


def test_a_padded_batch_holds_the_same_rows() -> None:
    rows = [encoding(5, 6, 7), encoding(8)]
    batch = Batch.pack(rows, BatchShape(2, 3)).padded(BatchShape(4, 8))
    expected = Batch.pack(rows, BatchShape(4, 8))
    for name in ("token_ids", "segment_ids", "padding_mask"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(expected, name))
        assert getattr(batch, name).dtype == np.int32
