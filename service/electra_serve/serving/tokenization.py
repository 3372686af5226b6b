"""Texts to checked sequences, without holding up anybody else.

Tokenizing takes up to a microsecond a character. A little of it is done on the event loop; the rest waits its turn
for one thread, so that callers with long texts queue behind each other and not in front of everyone. A call that
is cancelled before its turn costs nothing.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.presets.tokenizers.loader import Tokenizer
from electra_serve.presets.tokenizers.pairs import TokenizedText
from electra_serve.serving.validation import InputLimits, Validated, validate
from electra_serve.tensors import Int32Array, TextInput, TokenInput, Truncation

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
        self,
        text: TextInput,
        tokenizer: Tokenizer,
        limits: InputLimits,
        text_limits: TextLimits,
        truncation: Truncation = Truncation.NONE,
    ) -> Validated:
        """Makes sequences of texts; a pair gets segments 0 and 1.

        Args:
            text: What came.
            tokenizer: The model's.
            limits: What the model takes.
            text_limits: How much text.
            truncation: The rule for what becomes longer than the model takes. What is cut also keeps to the
                tokenizer's own bound.

        Raises:
            InvalidInput: A text is too long, in characters or in ids, or not one that the model has rows for.
            PayloadTooLarge: There is too much text.
        """
        characters = count_characters(text, text_limits)
        longest = limits.max_sequence_length
        if truncation is not Truncation.NONE:
            longest = min(longest, tokenizer.max_length or longest)
        work = partial(tokenizer.encode, text.texts, max_length=longest, truncation=truncation)
        if characters <= INLINE_CHARACTERS:
            tokenized = work()
        else:
            tokenized = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        check_tokenized(tokenized, limits, longest, truncation)
        tokens = TokenInput(tokenized.token_ids, tokenized.segment_ids)
        return Validated(validate(tokens, limits).encodings, tuple(tokenized.truncated))


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


def check_tokenized(tokenized: TokenizedText, limits: InputLimits, longest: int, truncation: Truncation) -> None:
    """Rejects what the model cannot take, under the name that the caller knows it by: of a text, not of its ids.

    Args:
        tokenized: The texts as ids.
        limits: What the model takes.
        longest: Most ids of a sequence.
        truncation: The rule by which they were cut.

    Raises:
        InvalidInput: A text is too long, a pair needs a second segment, or a piece has no row in the model.
    """
    for index, (ids, segments) in enumerate(zip(tokenized.token_ids, tokenized.segment_ids, strict=True)):
        message = (
            _length_problem(len(ids), longest, truncation)
            or _segment_problem(segments, limits.num_segments)
            or _id_problem(ids, limits.vocab_size)
        )
        if message:
            raise InvalidInput(message, field=f"text[{index}]")


def _length_problem(length: int, longest: int, truncation: Truncation) -> str:
    if 0 < length <= longest:
        return ""
    if not length:
        return "a text must become at least one id; it became none"
    if truncation is Truncation.NONE:
        return f"a text takes at most {longest} ids unless it may be truncated; received {length}"
    return f"truncation {truncation} must leave at most {longest} ids; it would leave {length}: choose another"


def _segment_problem(segments: Int32Array, num_segments: int) -> str:
    if segments.max(initial=0) < num_segments:
        return ""
    return f"a text must be single for a model of {num_segments} segment; received a pair of texts"


def _id_problem(ids: Int32Array, vocab_size: int) -> str:
    largest = int(ids.max(initial=0))
    if largest < vocab_size:
        return ""
    return f"a text must be of pieces whose ids are below {vocab_size}, the model's vocab_size; one is {largest}"
