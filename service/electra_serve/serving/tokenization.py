"""Tokenizes texts and checks the sequences.

Short texts are tokenized on the event loop at once; others wait in a `TokenizerQueue`. A request is rejected at its
first invalid text; later ones are not tokenized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.presets.tokenizers.loader import Tokenizer
from electra_serve.presets.tokenizers.pairs import TextOrPair, TokenizedText
from electra_serve.presets.tokenizers.steps import Steps, finish
from electra_serve.serving.tokenizer_queue import TokenizerQueue
from electra_serve.serving.validation import InputLimits, Validated, validate
from electra_serve.tensors import Int32Array, TextInput, TokenInput, Truncation

# Most characters of a request that are tokenized on the event loop: 0.2 ms for English, at most 4.4 ms
INLINE_CHARACTERS: Final = 512
MIN_CHARACTERS: Final = 16  # fewest characters that a text counts as, for its fixed costs


@dataclass(frozen=True, slots=True)
class TextLimits:
    """Most characters of a text, and of all texts of a request."""

    max_characters: int
    max_request_characters: int


class TextEncoder:
    """Tokenizes and checks texts; long ones wait in `queue`."""

    def __init__(self, queue: TokenizerQueue) -> None:
        self._queue = queue

    @property
    def work_s(self) -> float:
        """Estimated seconds to tokenize all queued texts."""
        return self._queue.work_s

    async def encode(
        self,
        text: TextInput,
        tokenizer: Tokenizer,
        limits: InputLimits,
        text_limits: TextLimits,
        truncation: Truncation = Truncation.NONE,
        *,
        client: str = "",
        priority: int = 1,
        timeout_s: float | None = None,
    ) -> Validated:
        """Turns texts into sequences; a pair gets segments 0 and 1.

        A truncated sequence also keeps to the tokenizer's own limit. Cancel the call after `timeout_s`.

        Raises:
            InvalidInput: A text is too long, in characters or in ids, or has ids outside the vocabulary.
            PayloadTooLarge: All texts together are too long.
            Overloaded: The queue is full, or its wait exceeds the deadline.
        """
        check_characters(text, text_limits)
        longest = limits.max_sequence_length
        if truncation is not Truncation.NONE:
            longest = min(longest, tokenizer.max_length or longest)
        steps = encode_in_steps(text.texts, tokenizer, limits, longest, truncation)
        characters = sum(max(len(part), MIN_CHARACTERS) for item in text.texts for part in _parts(item))
        if characters <= INLINE_CHARACTERS:
            return finish(steps)
        return await self._queue.run(steps, characters, client=client, priority=priority, timeout_s=timeout_s)


def encode_in_steps(
    texts: Sequence[TextOrPair], tokenizer: Tokenizer, limits: InputLimits, longest: int, truncation: Truncation
) -> Steps[Validated]:
    """Tokenizes and checks one text after the other, each at most `longest` ids; raises `InvalidInput`."""
    rows: list[TokenizedText] = []
    for index, item in enumerate(texts):
        row = yield from tokenizer.encode_in_steps((item,), max_length=longest, truncation=truncation)
        check_tokenized(row, index, limits, longest, truncation)
        rows.append(row)
    tokens = TokenInput([row.token_ids[0] for row in rows], [row.segment_ids[0] for row in rows])
    return Validated(validate(tokens, limits).encodings, tuple(row.truncated[0] for row in rows))


def _parts(item: TextOrPair) -> tuple[str, ...]:
    return (item,) if isinstance(item, str) else item


def check_characters(text: TextInput, limits: TextLimits) -> None:
    """Raises `InvalidInput` if a text is too long, and `PayloadTooLarge` if all together are."""
    total = 0
    for index, item in enumerate(text.texts):
        characters = sum(map(len, _parts(item)))
        if characters > limits.max_characters:
            raise InvalidInput(
                f"a text must have at most {limits.max_characters} characters; got {characters}",
                field=f"text[{index}]",
            )
        total += characters
    if total > limits.max_request_characters:
        raise PayloadTooLarge(
            f"the texts of a request must have at most {limits.max_request_characters} characters; got {total}",
            field="text",
        )


def check_tokenized(
    tokenized: TokenizedText, index: int, limits: InputLimits, longest: int, truncation: Truncation
) -> None:
    """Checks one tokenized text; errors name the text, since the client does not know its ids.

    Raises:
        InvalidInput: It is too long, the model has no segment for a pair, or an id is outside the vocabulary.
    """
    ids, segments = tokenized.token_ids[0], tokenized.segment_ids[0]
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
        return "a text must have at least one id; got none"
    if truncation is Truncation.NONE:
        return f"a text must have at most {longest} ids unless truncation is allowed; got {length}"
    return f"truncation {truncation} must leave at most {longest} ids; got {length}: use another truncation"


def _segment_problem(segments: Int32Array, num_segments: int) -> str:
    if segments.max(initial=0) < num_segments:
        return ""
    return f"a text must not be a pair for a model with {num_segments} segment; got a pair"


def _id_problem(ids: Int32Array, vocab_size: int) -> str:
    largest = int(ids.max(initial=0))
    if largest < vocab_size:
        return ""
    return f"ids of a text must be below the model's vocab_size, {vocab_size}; got {largest}"
