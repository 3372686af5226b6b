"""Tokenizes texts and checks the sequences.

Short texts are tokenized on the event loop at once; others wait in a `TokenizerQueue`. A request is rejected at its
first invalid text; later ones are not tokenized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from electra_serve.errors import InvalidInput, PayloadTooLarge
from electra_serve.presets.tokenizers.alignment import Alignment
from electra_serve.presets.tokenizers.loader import Tokenizer
from electra_serve.presets.tokenizers.pairs import MAX_WINDOWS, TextOrPair, TokenizedText
from electra_serve.presets.tokenizers.steps import Steps, finish
from electra_serve.serving.tokenizer_queue import TokenizerQueue
from electra_serve.serving.validation import InputLimits, Validated, validate
from electra_serve.tensors import Int32Array, TextInput, TokenInput, Truncation

T = TypeVar("T")

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
        stride: int | None = None,
        aligned: bool = False,
        client: str = "",
        priority: int = 1,
        timeout_s: float | None = None,
    ) -> Validated:
        """Turns texts into sequences; a pair gets segments 0 and 1.

        A truncated sequence, and a window, also keeps to the tokenizer's own limit. Cancel the call after `timeout_s`.
        `Tokenizer.encode` describes `stride` and `aligned`.

        Raises:
            InvalidInput: A text is too long, in characters or in ids, or has ids outside the vocabulary.
            PayloadTooLarge: All texts together are too long, or have too many windows.
            Overloaded: The queue is full, or its wait exceeds the deadline.
        """
        check_characters(text, text_limits)
        longest = limits.max_sequence_length
        if stride is not None or truncation is not Truncation.NONE:
            longest = longest_cut(tokenizer, limits)
        steps = encode_in_steps(text.texts, tokenizer, limits, longest, truncation, stride=stride, aligned=aligned)
        characters = sum(max(len(part), MIN_CHARACTERS) for item in text.texts for part in _parts(item))
        return await self.run(steps, characters, client=client, priority=priority, timeout_s=timeout_s)

    async def run(
        self,
        steps: Steps[T],
        characters: int,
        *,
        client: str = "",
        priority: int = 1,
        timeout_s: float | None = None,
    ) -> T:
        """Runs the steps of a request, in the queue if they read many characters; raises `Overloaded`."""
        if characters <= INLINE_CHARACTERS:
            return finish(steps)
        return await self._queue.run(steps, characters, client=client, priority=priority, timeout_s=timeout_s)


def longest_cut(tokenizer: Tokenizer, limits: InputLimits) -> int:
    """Returns the most ids of a sequence that is truncated or a window."""
    longest = limits.max_sequence_length
    return min(longest, tokenizer.max_length or longest)


def encode_in_steps(
    texts: Sequence[TextOrPair],
    tokenizer: Tokenizer,
    limits: InputLimits,
    longest: int,
    truncation: Truncation,
    *,
    stride: int | None = None,
    aligned: bool = False,
) -> Steps[Validated]:
    """Tokenizes and checks one text after the other, each at most `longest` ids.

    Raises `InvalidInput`, and `PayloadTooLarge` for too many windows.
    """
    rows: list[TokenizedText] = []
    count = 0
    for index, item in enumerate(texts):
        row = yield from tokenizer.encode_in_steps(
            (item,), max_length=longest, truncation=truncation, stride=stride, aligned=aligned
        )
        check_tokenized(row, index, limits, longest, truncation, stride)
        count += len(row.token_ids)
        if count > limits.max_sequences:
            raise PayloadTooLarge(
                f"the windows of all texts must be at most {limits.max_sequences} sequences; got more: use "
                f"{_smaller(stride)}shorter texts",
                field=f"text[{index}]",
            )
        rows.append(row)
    tokens = TokenInput(
        [ids for row in rows for ids in row.token_ids], [segments for row in rows for segments in row.segment_ids]
    )
    return Validated(
        validate(tokens, limits).encodings,
        tuple(cut for row in rows for cut in row.truncated),
        tuple(alignment for row in rows for alignment in row.alignments or ()) if aligned else None,
        tuple(len(row.token_ids) for row in rows),
    )


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
    tokenized: TokenizedText,
    index: int,
    limits: InputLimits,
    longest: int,
    truncation: Truncation,
    stride: int | None = None,
) -> None:
    """Checks one tokenized text; errors name the text, since the client does not know its ids.

    Raises:
        InvalidInput: It is too long, the model has no segment for a pair, or an id is outside the vocabulary.
    """
    alignments = tokenized.alignments or (None,) * len(tokenized.token_ids)
    for ids, segments, alignment in zip(tokenized.token_ids, tokenized.segment_ids, alignments, strict=True):
        message = (
            _length_problem(len(ids), longest, truncation, stride, alignment)
            or _segment_problem(segments, limits.num_segments)
            or _id_problem(ids, limits.vocab_size)
        )
        if message:
            raise InvalidInput(message, field=f"text[{index}]")


def _length_problem(
    length: int, longest: int, truncation: Truncation, stride: int | None, alignment: Alignment | None
) -> str:
    if 0 < length <= longest:
        return ""
    if not length:
        return "a text must have at least one id; got none"
    if stride is not None:
        return _windows_problem(length, longest, stride, alignment)
    if truncation is Truncation.NONE:
        return f"a text must have at most {longest} ids unless truncation is allowed; got {length}"
    return f"truncation {truncation} must leave at most {longest} ids; got {length}: use another truncation"


def _windows_problem(length: int, longest: int, stride: int, alignment: Alignment | None) -> str:
    """Says why a text has no windows; a pair's first text, such as a question, is in each of them."""
    first, second = (0, 0) if alignment is None else (int((alignment.texts == part).sum()) for part in (0, 1))
    room = longest - (length - second)
    if second and room <= stride:
        needed = f"more than {stride} ids, the stride," if stride else "at least one id"
        advice = "a smaller stride or a shorter first text" if room > 0 else "a shorter first text"
        return (
            f"the first text, such as a question, must leave {needed} of a window of {longest} ids to the second; it "
            f"has {first}: use {advice}"
        )
    return (
        f"a text must fit into at most {MAX_WINDOWS} windows of {longest} ids, special ones included, that share "
        f"{stride}; got {length} ids: use {_smaller(stride)}a shorter text"
    )


def _smaller(stride: int | None) -> str:
    return "a smaller stride or " if stride else ""


def _segment_problem(segments: Int32Array, num_segments: int) -> str:
    if segments.max(initial=0) < num_segments:
        return ""
    return f"a text must not be a pair for a model with {num_segments} segment; got a pair"


def _id_problem(ids: Int32Array, vocab_size: int) -> str:
    largest = int(ids.max(initial=0))
    if largest < vocab_size:
        return ""
    return f"ids of a text must be below the model's vocab_size, {vocab_size}; got {largest}"
