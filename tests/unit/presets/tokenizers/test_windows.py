"""Windows: a text that is too long becomes sequences that overlap."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.presets.tokenizers.alignment import NO_TEXT
from electra_serve.presets.tokenizers.loader import Tokenizer
from electra_serve.presets.tokenizers.pairs import Packer, Template, keep_as_transformers
from electra_serve.tensors import Truncation
from tests.unit.presets.tokenizers.test_steps import PIECES, bert, keras

CLS, SEP = 1, 2
PACKER = Packer(Template.bert(CLS, SEP), keep_as_transformers)


def windows(parts: list[list[int]], max_length: int, stride: int, packer: Packer = PACKER) -> list[list[int]]:
    packed = packer.pack([parts], max_length, Truncation.NONE, stride)
    assert packed.truncated == (False,) * len(packed.token_ids)
    return [row.tolist() for row in packed.token_ids]


def test_a_context_is_cut_into_windows() -> None:
    rows = windows([[10], [20, 21, 22, 23, 24, 25, 26]], max_length=8, stride=1)
    assert rows == [
        [CLS, 10, SEP, 20, 21, 22, 23, SEP],
        [CLS, 10, SEP, 23, 24, 25, 26, SEP],
    ]


def test_what_fits_is_one_sequence() -> None:
    assert windows([[10, 11]], max_length=4, stride=1) == [[CLS, 10, 11, SEP]]


def test_the_left_side_has_windows_from_the_end() -> None:
    left = Packer(PACKER.template, keep_as_transformers, "left")
    assert windows([[10, 11, 12, 13]], 5, 1, left) == [[CLS, 11, 12, 13, SEP], [CLS, 10, 11, SEP]]


@pytest.mark.parametrize("stride", [2, 3])
def test_windows_without_a_step_stay_whole(stride: int) -> None:
    assert windows([[10, 11, 12]], max_length=4, stride=stride) == [[CLS, 10, 11, 12, SEP]]


@given(st.integers(0, 40), st.integers(1, 9), st.integers(0, 8))
def test_windows_cover_every_id_and_overlap(length: int, room: int, stride: int) -> None:
    context = list(range(100, 100 + length))
    rows = [row[3:-1] for row in windows([[10], context], room + 4, stride)]
    if stride >= room:
        assert rows == [context]
        return
    assert [id_ for at, row in enumerate(rows) for id_ in row[stride if at else 0 :]] == context
    assert all(len(row) == room for row in rows[:-1])
    assert all(row[-stride:] == after[:stride] for row, after in pairwise(rows) if stride)


@pytest.mark.parametrize("tokenizer", [keras(), bert()], ids=["keras", "bert"])
def test_windows_keep_the_places_of_their_ids(tokenizer: Tokenizer) -> None:
    found = tokenizer.encode([("a", "b a b a")], max_length=6, stride=1, aligned=True)
    assert [[PIECES[id_] for id_ in row] for row in found.token_ids] == [
        ["[CLS]", "a", "[SEP]", "b", "a", "[SEP]"],
        ["[CLS]", "a", "[SEP]", "a", "b", "[SEP]"],
        ["[CLS]", "a", "[SEP]", "b", "a", "[SEP]"],
    ]
    assert found.alignments is not None
    assert [alignment.starts.tolist()[3:5] for alignment in found.alignments] == [[0, 2], [2, 4], [4, 6]]
    assert all(alignment.texts.tolist() == [NO_TEXT, 0, NO_TEXT, 1, 1, NO_TEXT] for alignment in found.alignments)
    assert [row.tolist() for row in found.segment_ids] == [[0, 0, 0, 1, 1, 1]] * 3
