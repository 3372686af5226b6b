"""Packing and cutting: nothing moves, nothing leaks from one sequence into another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.tensors import (
    ENCODER_OUTPUTS,
    SLOT_POSITIONS,
    Batch,
    BatchShape,
    Encoding,
    ModelOutput,
    Output,
    Placement,
    RowOutput,
)
from tests.fakes import FakeEngine, encoding

sequences = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=12)
SHAPE = BatchShape(rows=3, length=40)


def place(encodings: list[Encoding], row: int) -> list[Placement]:
    """One after the other, four to a row, from `row` on."""
    placements, start = [], 0
    for index, one in enumerate(encodings):
        start = 0 if index % 4 == 0 else start
        placements.append(Placement((row + index // 4) % SHAPE.rows, index % 4, start, one.compute_length))
        start += max(one.compute_length, SLOT_POSITIONS)
    return placements


@given(sequences, st.integers(0, 2), st.integers(0, 4))
def test_pack_run_and_cut_give_back_each_sequence(ids: list[list[int]], row: int, tail: int) -> None:
    encodings = [encoding(*one, masked_tail=tail) for one in ids]
    placements = place(encodings, row)
    batch = Batch.pack(encodings, placements, SHAPE)
    assert batch.shape == SHAPE
    assert batch.padding_mask.sum() == (batch.sequence_ids > 0).sum() == sum(map(len, ids))
    output = FakeEngine().run(batch, ENCODER_OUTPUTS)
    for one, sequence, placed in zip(ids, encodings, placements, strict=True):
        cut = output.extract(placed, sequence, frozenset({Output.SEQUENCE, Output.MEAN, Output.CLS}))
        assert cut.get(Output.SEQUENCE)[:, 0].tolist() == one + [0] * tail
        assert cut.get(Output.MEAN)[0] == pytest.approx(np.mean(one))
        assert cut.get(Output.CLS)[0] == one[0]
        assert cut.pooled_output is None


@given(sequences)
def test_positions_begin_again_in_each_sequence_and_padding_belongs_to_none(ids: list[list[int]]) -> None:
    encodings = [encoding(*one) for one in ids]
    placements = place(encodings, 0)
    batch = Batch.pack(encodings, placements, SHAPE)
    for placed in placements:
        span = slice(placed.start, placed.start + placed.length)
        assert batch.position_ids[placed.row, span].tolist() == list(range(placed.length))
        assert set(batch.sequence_ids[placed.row, span].tolist()) == {placed.slot + 1}
        assert batch.starts[placed.row, placed.slot] == placed.start
    padding = batch.sequence_ids == 0
    for array in (batch.token_ids, batch.segment_ids, batch.position_ids, batch.padding_mask):
        assert array.dtype == np.int32
        assert not array[padding].any()


def test_masked_positions_inside_a_sequence_still_belong_to_it() -> None:
    ones = np.ones(5, np.int32)
    mask = np.array([0, 1, 0, 1, 1], np.int32)
    hole = Encoding(ones, ones * 0, mask, compute_length=5, real_tokens=3)
    batch = Batch.pack([hole], [Placement(0, 1, 8, 5)], BatchShape(1, 16))
    assert batch.sequence_ids[0, 8:13].tolist() == [2] * 5
    assert batch.padding_mask[0, 8:13].tolist() == mask.tolist()
    assert batch.starts.tolist() == [[0, 8, 0, 0]]


def test_one_per_row() -> None:
    batch = Batch.one_per_row([encoding(5, 6), encoding(7)], BatchShape(3, 4))
    assert batch.token_ids.tolist() == [[5, 6, 0, 0], [7, 0, 0, 0], [0, 0, 0, 0]]
    assert batch.sequence_ids.max(axis=1).tolist() == [1, 1, 0]


@pytest.mark.parametrize(("length", "slots"), [(1, 1), (4, 1), (7, 1), (8, 2), (512, 128)])
def test_a_row_has_a_slot_for_every_four_positions(length: int, slots: int) -> None:
    assert BatchShape(1, length).slots == slots


def test_positions_that_were_not_computed_are_added_when_an_output_is_read() -> None:
    row = ModelOutput(sequence_output=np.ones((1, 4, 3), np.float32)).extract(
        Placement(0, 0, 1, 2), encoding(1, 2, masked_tail=3), frozenset({Output.SEQUENCE})
    )
    assert row.sequence_output is not None
    assert row.sequence_output.shape == (2, 3)
    assert row.size(Output.SEQUENCE) == row.get(Output.SEQUENCE).size == 15
    np.testing.assert_array_equal(row.get(Output.SEQUENCE).sum(axis=1), [3, 3, 0, 0, 0])
    assert RowOutput(mean_output=np.ones(3, np.float32), length=5).size(Output.MEAN) == 3


def test_token_logits_are_completed_as_hidden_states_are() -> None:
    output = ModelOutput(logits=np.ones((1, 2, 3), np.float32), token_logits=np.ones((1, 4, 3), np.float32))
    place, sequence = Placement(0, 1, 1, 2), encoding(1, 2, masked_tail=3)
    row = output.extract(place, sequence, frozenset({Output.TOKEN_LOGITS, Output.LOGITS}))
    assert row.size(Output.TOKEN_LOGITS) == row.get(Output.TOKEN_LOGITS).size == 15
    assert row.get(Output.TOKEN_LOGITS).sum(axis=1).tolist() == [3, 3, 0, 0, 0]
    assert row.get(Output.LOGITS).tolist() == [1, 1, 1]


def test_an_output_that_was_not_requested_is_absent() -> None:
    with pytest.raises(KeyError, match="pooled_output"):
        RowOutput(cls_output=np.zeros(2, np.float32)).get(Output.POOLED)
    with pytest.raises(KeyError, match="did not compute"):
        ModelOutput().extract(Placement(0, 0, 0, 1), encoding(1), frozenset({Output.CLS}))
