"""Parts of a request's sequences, texts or ids. Pure."""

from __future__ import annotations

import re
from typing import Final, overload

from electra_serve.tensors import TextInput, TokenInput

TEMPLATE_IDS: Final = 8  # ids around a text that estimates of its length allow for


def count_of(sequences: TextInput | TokenInput) -> int:
    """Returns the number of sequences."""
    return len(sequences.texts if isinstance(sequences, TextInput) else sequences.token_ids)


def sizes_of(sequences: TextInput | TokenInput) -> list[int]:
    """Returns the characters or ids of each sequence."""
    if isinstance(sequences, TokenInput):
        return list(map(len, sequences.token_ids))
    return [len(text) if isinstance(text, str) else len(text[0]) + len(text[1]) for text in sequences.texts]


@overload
def part_of(sequences: TextInput, part: range) -> TextInput: ...


@overload
def part_of(sequences: TokenInput, part: range) -> TokenInput: ...


def part_of(sequences: TextInput | TokenInput, part: range) -> TextInput | TokenInput:
    """Returns the sequences with these indices."""
    kept = slice(part.start, part.stop)
    if isinstance(sequences, TextInput):
        return TextInput(sequences.texts[kept])
    return TokenInput(
        sequences.token_ids[kept],
        None if sequences.segment_ids is None else sequences.segment_ids[kept],
        None if sequences.padding_mask is None else sequences.padding_mask[kept],
    )


def renamed_field(field: str | None, name: str) -> str | None:
    """Replaces the name of a field, and keeps its index.

    Example:
        >>> renamed_field("text[3]", "input"), renamed_field("model", "input")
        ('input[3]', 'model')
    """
    return None if field is None else re.sub(r"^(text|token_ids)\b", name, field)


def shifted_field(field: str | None, start: int) -> str | None:
    """Adds `start` to the index of a field such as `text[3]`."""
    return None if field is None else re.sub(r"(?<=\[)\d+", lambda index: str(int(index[0]) + start), field, count=1)
