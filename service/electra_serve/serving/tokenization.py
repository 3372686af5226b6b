"""Texts to checked sequences, without holding up anybody else.

Tokenizing takes up to a microsecond a character. A little of it is done on the event loop; the rest waits its turn
for one thread, so that callers with long texts queue behind each other and not in front of everyone. A call that
is cancelled before its turn costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.presets.tokenizers.loader import Tokenizer
from electra_serve.serving.validation import InputLimits, Validated, validate
from electra_serve.tensors import IntArray, TextInput, TokenInput

INLINE_CHARACTERS: Final = 2048
"""Texts up to this many characters together are tokenized on the event loop, in a millisecond or two."""


@dataclass(frozen=True, slots=True)
class TextLimits:
    """How much text a request may hold.

    Attributes:
        max_characters: Longest text.
        max_request_characters: Most characters over all texts.
    """

    max_characters: int
    max_request_characters: int


class TextEncoder:
    """Tokenizes and checks texts."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")

    async def encode(
        self, text: TextInput, tokenizer: Tokenizer, limits: InputLimits, text_limits: TextLimits, *, truncate: bool
    ) -> Validated:
        """Makes sequences of texts; a pair gets segments 0 and 1.

        Args:
            text: What came.
            tokenizer: The model's.
            limits: What the model takes.
            text_limits: How much text.
            truncate: Cut what becomes too long, instead of refusing it.

        Raises:
            InvalidInput: A text is too long, in characters or in ids.
            PayloadTooLarge: There is too much text.
        """
        characters = count_characters(text, text_limits)
        work = partial(tokenizer.encode, text.texts, max_length=limits.max_sequence_length, truncate=truncate)
        if characters <= INLINE_CHARACTERS:
            tokenized = work()
        else:
            tokenized = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        _check_lengths(tokenized.token_ids, limits.max_sequence_length)
        tokens = TokenInput(tokenized.token_ids, tokenized.segment_ids)
        return Validated(validate(tokens, limits, truncate=False).encodings, tuple(tokenized.truncated))


def count_characters(text: TextInput, limits: TextLimits) -> int:
    """Characters over all texts.

    Raises:
        InvalidInput: One of them is too long.
        PayloadTooLarge: All of them together are.
    """
    total = 0
    for index, item in enumerate(text.texts):
        characters = len(item) if isinstance(item, str) else sum(len(part) for part in item)
        if characters > limits.max_characters:
            raise InvalidInput(
                f"a text takes at most {limits.max_characters} characters; received {characters}",
                field=f"text[{index}]",
            )
        total += characters
    if total > limits.max_request_characters:
        raise PayloadTooLarge(
            f"the texts of a request take at most {limits.max_request_characters} characters; received {total}",
            field="text",
        )
    return total


def _check_lengths(token_ids: Sequence[IntArray], longest: int) -> None:
    """Refuses what is too long under the name that the caller knows it by: of a text, not of the ids made of it."""
    for index, row in enumerate(token_ids):
        if len(row) > longest:
            raise InvalidInput(
                f"a text takes at most {longest} ids unless truncate is true; received {len(row)}",
                field=f"text[{index}]",
            )
