"""Checks ids, segments and masks against a model's limits before they are queued.

All rows are concatenated, and each rule is one array operation; the row at fault is searched only after a failure.
An id out of range fails the whole batch on CPU, is clamped by XLA, and becomes zeros on GPU.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np

from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.presets.tokenizers.alignment import Alignment
from electra_serve.tensors import Encoding, Int32Array, IntArray, TokenInput, Truncation

_FIELDS: Final = ("token_ids", "segment_ids", "padding_mask")


@dataclass(frozen=True, slots=True)
class InputLimits:
    """Limits of one request; token ids are below `vocab_size`, segment ids below `num_segments`."""

    vocab_size: int
    num_segments: int
    max_sequence_length: int
    max_sequences: int


@dataclass(frozen=True, slots=True)
class Validated:
    """Valid sequences in order; `truncated` is True for each that was cut.

    `alignments` are set on request, and so is `windows`, the number of sequences of each text.
    """

    encodings: tuple[Encoding, ...]
    truncated: tuple[bool, ...]
    alignments: tuple[Alignment, ...] | None = None
    windows: tuple[int, ...] | None = None


def check_count(rows: int, limits: InputLimits, field: str) -> None:
    """Raises `InvalidInput` if there are no sequences, and `PayloadTooLarge` if there are too many."""
    if rows == 0:
        raise InvalidInput(f"{field} must have at least one sequence; got none", field=field)
    if rows > limits.max_sequences:
        raise PayloadTooLarge(f"{field} must have at most {limits.max_sequences} sequences; got {rows}", field=field)


def validate(tokens: TokenInput, limits: InputLimits, truncation: Truncation = Truncation.NONE) -> Validated:
    """Checks every row and makes it an `Encoding`.

    Args:
        tokens: Integer arrays of shape (T,).
        limits: Limits of the model.
        truncation: Rule for longer rows. `LEFT` keeps the last `max_sequence_length` ids, others the first.

    Raises:
        InvalidInput: A length, a value or a mask is invalid; the error names field and row.
        PayloadTooLarge: There are too many rows.

    Example:
        >>> limits = InputLimits(vocab_size=10, num_segments=2, max_sequence_length=4, max_sequences=8)
        >>> validate(TokenInput([np.array([1, 2, 3])]), limits).encodings[0].token_ids
        array([1, 2, 3], dtype=int32)
    """
    check_count(len(tokens.token_ids), limits, "token_ids")
    if truncation is Truncation.ONLY_SECOND:
        raise InvalidInput("truncation only_second needs pairs of texts; got token_ids", field="truncation")
    _check_lengths_agree(tokens)
    lengths = [len(row) for row in tokens.token_ids]
    truncated = tuple(length > limits.max_sequence_length for length in lengths)
    if any(truncated):
        if truncation is Truncation.NONE:
            _reject_length(lengths, limits.max_sequence_length)
        tokens = _cut(tokens, limits.max_sequence_length, truncation)
        lengths = [min(length, limits.max_sequence_length) for length in lengths]
    ends = list(accumulate(lengths))
    token_ids = _in_range(tokens.token_ids, "token_ids", limits.vocab_size, ends)
    segment_ids = (
        np.zeros(ends[-1], np.int32)
        if tokens.segment_ids is None
        else _in_range(tokens.segment_ids, "segment_ids", limits.num_segments, ends)
    )
    padding_mask = None if tokens.padding_mask is None else _in_range(tokens.padding_mask, "padding_mask", 2, ends)
    return Validated(_encodings(token_ids, segment_ids, padding_mask, ends), truncated)


def _check_lengths_agree(tokens: TokenInput) -> None:
    for index, row in enumerate(tokens.token_ids):
        if len(row) == 0:
            raise InvalidInput("a sequence must have at least one id; got none", field=f"token_ids[{index}]")
    for field, rows in ((_FIELDS[1], tokens.segment_ids), (_FIELDS[2], tokens.padding_mask)):
        if rows is None:
            continue
        if len(rows) != len(tokens.token_ids):
            raise InvalidInput(
                f"{field} must have as many rows as token_ids, {len(tokens.token_ids)}; got {len(rows)}",
                field=field,
            )
        for index, (ids, row) in enumerate(zip(tokens.token_ids, rows, strict=True)):
            if len(row) != len(ids):
                raise InvalidInput(
                    f"{field} must be as long as its token_ids, {len(ids)}; got {len(row)}",
                    field=f"{field}[{index}]",
                )


def _reject_length(lengths: Sequence[int], longest: int) -> None:
    index = next(index for index, length in enumerate(lengths) if length > longest)
    raise InvalidInput(
        f"a sequence must have at most {longest} ids unless truncation is allowed; got {lengths[index]}",
        field=f"token_ids[{index}]",
    )


def _cut(tokens: TokenInput, longest: int, truncation: Truncation) -> TokenInput:
    kept = slice(-longest, None) if truncation is Truncation.LEFT else slice(longest)

    def cut(rows: Sequence[IntArray] | None) -> list[IntArray] | None:
        return None if rows is None else [row[kept] for row in rows]

    return TokenInput([row[kept] for row in tokens.token_ids], cut(tokens.segment_ids), cut(tokens.padding_mask))


def _in_range(rows: Sequence[IntArray], field: str, bound: int, ends: Sequence[int]) -> Int32Array:
    """Concatenates rows as int32; checks that values are from 0 to `bound` − 1."""
    flat = np.concatenate(rows) if len(rows) > 1 else rows[0]  # (ΣT,)
    if flat.min() < 0 or flat.max() >= bound:
        at = int(np.argmax((flat < 0) | (flat >= bound)))
        row = bisect_right(ends, at)
        raise InvalidInput(
            f"{field} must be from 0 to {bound - 1}; got {int(flat[at])}",
            field=f"{field}[{row}][{at - (ends[row - 1] if row else 0)}]",
        )
    return flat.astype(np.int32, copy=False)


def _encodings(
    token_ids: Int32Array, segment_ids: Int32Array, padding_mask: Int32Array | None, ends: Sequence[int]
) -> tuple[Encoding, ...]:
    mask = np.ones(ends[-1], np.int32) if padding_mask is None else padding_mask  # (ΣT,)
    whole_rows = padding_mask is None or bool(padding_mask.all())
    encodings = []
    start = 0
    for index, end in enumerate(ends):
        whole = (end - start, end - start)
        compute_length, real_tokens = whole if whole_rows else _attended(mask[start:end], index)
        encodings.append(
            Encoding(token_ids[start:end], segment_ids[start:end], mask[start:end], compute_length, real_tokens)
        )
        start = end
    return tuple(encodings)


def _attended(mask: Int32Array, index: int) -> tuple[int, int]:
    """Returns the length up to the last 1 of a row and the number of ones."""
    attended = np.flatnonzero(mask)
    if attended.size == 0:
        raise InvalidInput(
            "padding_mask must have at least one 1 in each row; got all zeros", field=f"padding_mask[{index}]"
        )
    return int(attended[-1]) + 1, int(attended.size)
