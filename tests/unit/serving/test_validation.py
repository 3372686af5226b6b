"""Limits of a model, from both sides of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.serving.validation import InputLimits, validate
from electra_serve.tensors import IntArray, TokenInput, Truncation

LIMITS = InputLimits(vocab_size=100, num_segments=2, max_sequence_length=6, max_sequences=3)


def tokens(
    ids: Sequence[Sequence[int]],
    segments: Sequence[Sequence[int]] | None = None,
    mask: Sequence[Sequence[int]] | None = None,
) -> TokenInput:
    def arrays(rows: Sequence[Sequence[int]] | None) -> list[IntArray] | None:
        return None if rows is None else [np.array(row, np.int64) for row in rows]

    return TokenInput(arrays(ids) or [], arrays(segments), arrays(mask))


def test_defaults_are_segment_zero_and_everything_attended() -> None:
    [row] = validate(tokens([[1, 99, 0]]), LIMITS).encodings
    assert row.token_ids.tolist() == [1, 99, 0]
    assert row.segment_ids.tolist() == [0, 0, 0]
    assert row.padding_mask.tolist() == [1, 1, 1]
    assert (row.compute_length, row.real_tokens) == (3, 3)
    assert row.token_ids.dtype == np.int32


def test_a_masked_tail_is_cut_from_compute_and_a_hole_is_not() -> None:
    [row] = validate(tokens([[1, 2, 3, 4, 5]], mask=[[1, 0, 1, 0, 0]]), LIMITS).encodings
    assert (len(row), row.compute_length, row.real_tokens) == (5, 3, 2)


@pytest.mark.parametrize(
    ("given_tokens", "field", "message"),
    [
        (tokens([]), "token_ids", "at least one sequence"),
        (tokens([[1], []]), "token_ids[1]", "at least one id"),
        (tokens([[1], [2, 100]]), "token_ids[1][1]", "from 0 to 99; got 100"),
        (tokens([[-1]]), "token_ids[0][0]", "got -1"),
        (tokens([[1], [2**62]]), "token_ids[1][0]", f"got {2**62}"),
        (tokens([[1, 2]], segments=[[0, 2]]), "segment_ids[0][1]", "from 0 to 1; got 2"),
        (tokens([[1, 2]], segments=[[0]]), "segment_ids[0]", "as long as its token_ids, 2; got 1"),
        (tokens([[1], [2]], segments=[[0]]), "segment_ids", "as many rows as token_ids, 2; got 1"),
        (tokens([[1]], mask=[[2]]), "padding_mask[0][0]", "from 0 to 1; got 2"),
        (tokens([[1], [2, 3]], mask=[[1], [0, 0]]), "padding_mask[1]", "at least one 1"),
        (tokens([[1] * 6, [1] * 7]), "token_ids[1]", "at most 6 ids unless truncation is allowed; got 7"),
    ],
)
def test_invalid_input_names_field_rule_and_value(given_tokens: TokenInput, field: str, message: str) -> None:
    with pytest.raises(InvalidInput) as rejection:
        validate(given_tokens, LIMITS)
    assert rejection.value.field == field
    assert message in rejection.value.message


def test_row_count_from_both_sides() -> None:
    assert len(validate(tokens([[1]] * 3), LIMITS).encodings) == 3
    with pytest.raises(PayloadTooLarge, match="at most 3 sequences; got 4"):
        validate(tokens([[1]] * 4), LIMITS)


def test_truncate_cuts_all_three_and_says_which_rows() -> None:
    long = [list(range(8)), [1, 2]]
    validated = validate(
        tokens(long, segments=[[1] * 8, [0, 1]], mask=[[1] * 8, [1, 1]]), LIMITS, Truncation.LONGEST_FIRST
    )
    assert validated.truncated == (True, False)
    assert validated.encodings[0].token_ids.tolist() == list(range(6))
    assert validated.encodings[0].segment_ids.tolist() == [1] * 6


def test_left_keeps_the_end_of_all_three() -> None:
    long = tokens([list(range(8))], segments=[[0] * 7 + [1]], mask=[[0] * 7 + [1]])
    [row] = validate(long, LIMITS, Truncation.LEFT).encodings
    assert row.token_ids.tolist() == list(range(2, 8))
    assert row.segment_ids.tolist() == row.padding_mask.tolist() == [0] * 5 + [1]


@pytest.mark.parametrize("truncation", [Truncation.RIGHT, Truncation.LONGEST_FIRST, Truncation.ONLY_FIRST])
def test_ids_are_one_text(truncation: Truncation) -> None:
    validated = validate(tokens([list(range(8)), [1]]), LIMITS, truncation)
    assert [row.token_ids.tolist() for row in validated.encodings] == [list(range(6)), [1]]
    assert validated.truncated == (True, False)


def test_ids_have_no_second_text() -> None:
    with pytest.raises(InvalidInput, match="only_second needs pairs of texts; got token_ids") as raised:
        validate(tokens([[1]]), LIMITS, Truncation.ONLY_SECOND)
    assert raised.value.field == "truncation"


ragged = st.lists(st.lists(st.integers(-3, 103), max_size=8), max_size=5)


@given(ragged, st.booleans())
def test_whatever_comes_is_valid_or_rejected(ids: list[list[int]], truncate: bool) -> None:
    try:
        validated = validate(tokens(ids), LIMITS, Truncation.RIGHT if truncate else Truncation.NONE)
    except (InvalidInput, PayloadTooLarge):
        kept = [row[:6] for row in ids] if truncate else ids
        assert (
            not 1 <= len(ids) <= 3
            or any(not 1 <= len(row) <= 6 for row in kept)
            or any(not 0 <= value < 100 for row in kept for value in row)
        )
        return
    assert [one.token_ids.tolist() for one in validated.encodings] == [row[:6] for row in ids]
