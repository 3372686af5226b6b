"""Texts to checked sequences.

A little text is tokenized on the event loop at once; the rest waits for its turn in a `TokenizerQueue`. A request ends
with its first text that the model cannot take: those after it are not tokenized.
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

INLINE_CHARACTERS: Final = 512
"""Texts up to this many characters together are tokenized on the event loop: 0.2 ms of English, 4.4 ms at worst."""
MIN_CHARACTERS: Final = 16
"""Characters that a text counts as at least: each text has costs of its own."""


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
    """Tokenizes and checks texts.

    Args:
        queue: Where long texts wait.
    """

    def __init__(self, queue: TokenizerQueue) -> None:
        self._queue = queue

    @property
    def work_s(self) -> float:
        """Estimated time to tokenize everything that waits."""
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
        """Makes sequences of texts; a pair gets segments 0 and 1.

        Args:
            text: The texts.
            tokenizer: The model's.
            limits: Limits of the model.
            text_limits: Most text in a request.
            truncation: The rule for what becomes longer than the model takes. What is cut also keeps to the
                tokenizer's own bound.
            client: The client that they count for.
            priority: Lower goes first.
            timeout_s: Seconds after which the result is useless; the caller has to cancel the call then.

        Raises:
            InvalidInput: A text is too long, in characters or in ids, or not one that the model has rows for.
            PayloadTooLarge: There is too much text.
            Overloaded: Too much text waits, or its turn would come too late.
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
    """Tokenizes and checks each text in turn.

    Args:
        texts: The texts.
        tokenizer: The model's.
        limits: Limits of the model.
        longest: Most ids of a sequence.
        truncation: The rule for longer ones.

    Raises:
        InvalidInput: The model cannot take one of them.
    """
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
    """Checks the length of each text, and of all together.

    Raises:
        InvalidInput: One of them is too long.
        PayloadTooLarge: All of them together are.
    """
    total = 0
    for index, item in enumerate(text.texts):
        characters = sum(map(len, _parts(item)))
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


def check_tokenized(
    tokenized: TokenizedText, index: int, limits: InputLimits, longest: int, truncation: Truncation
) -> None:
    """Rejects a text that the model cannot take, under the name that the client knows: of the text, not of its ids.

    Args:
        tokenized: One text as ids.
        index: Its place in the request.
        limits: Limits of the model.
        longest: Most ids of a sequence.
        truncation: The rule by which it was cut.

    Raises:
        InvalidInput: It is too long, a pair needs a second segment, or a piece has no row in the model.
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
