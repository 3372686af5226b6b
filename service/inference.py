"""The one door for every transport: validate, submit, collect.

A transport turns its own message into an `EncodeRequest`, awaits `InferenceService.encode`, and turns the
`EncodeResult` or the `ServiceError` back. Nothing here knows which transport that was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from service.errors import InvalidInput
from service.registry import ModelInfo, ModelRegistry, ServedModel
from service.tensors import DEFAULT_OUTPUTS, IntArray, Outputs, RowOutput, TextInput, TokenInput
from service.validation import Validated, check_count, validate

INLINE_CHARACTERS: Final = 4096
"""Texts up to this many characters together are tokenized on the event loop, in well under a millisecond;
more goes to a thread, where the tokenizer works without the interpreter lock."""


class Priority(IntEnum):
    """Who goes first in the queue. Lower values first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """What a caller wants encoded.

    Attributes:
        input: Ids or texts.
        model: A served model's name; None where just one is served.
        outputs: What to answer with; at least one.
        truncate: Cut what is longer than the model takes, instead of refusing it.
        client: Whose turn it is, for fairness between clients; any stable string.
        priority: Which requests go first.
        timeout_s: Seconds from now after which the caller no longer wants the answer; None: no limit.
    """

    input: TokenInput | TextInput
    model: str | None = None
    outputs: Outputs = DEFAULT_OUTPUTS
    truncate: bool = False
    client: str = ""
    priority: Priority = Priority.NORMAL
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class EncodeResult:
    """The answer.

    Attributes:
        model: The name of the model that computed it.
        outputs: What was asked for.
        rows: One per sequence, in the caller's order.
        tokens: Unmasked positions over all rows.
        truncated: Per row, whether it was cut.
    """

    model: str
    outputs: Outputs
    rows: tuple[RowOutput, ...]
    tokens: int
    truncated: tuple[bool, ...]


class InferenceService:
    """Encodes requests with the models of a registry.

    Args:
        registry: The models.
        max_timeout_s: Seconds after which any request is given up.
    """

    def __init__(self, registry: ModelRegistry, *, max_timeout_s: float) -> None:
        self._registry = registry
        self._max_timeout_s = max_timeout_s

    @property
    def ready(self) -> bool:
        """Whether every configured model is ready and nothing is shutting down."""
        return self._registry.ready

    def label(self, model: str | None) -> str:
        """The name that `model` has in metrics: a configured one, or "" where it is none of them."""
        return self._registry.label(model)

    def models(self) -> tuple[ModelInfo, ...]:
        """What is served, in the settings' order, whatever its state."""
        return self._registry.infos()

    def model(self, name: str) -> ModelInfo:
        """One model, whatever its state.

        Raises:
            ModelNotFound: No model has that name.
        """
        return self._registry.info(name)

    async def encode(self, request: EncodeRequest) -> EncodeResult:
        """Computes the outputs that `request` asks for.

        Cancelling the call takes what still waits out of the queue.

        Raises:
            ModelNotFound: No model has that name, or none was named where several are served.
            ModelNotReady: It is loading, unloading or failed.
            InvalidInput: The ids or texts are not what the model takes.
            PayloadTooLarge: Too many sequences.
            Overloaded: The queue is full.
            ShuttingDown: Nothing new is admitted.
            DeadlineExceeded: The deadline passed first.
            EngineFailure: The engine fails on one of the sequences.
        """
        model = self._registry.ready_model(request.model)
        if not request.outputs:
            raise InvalidInput("outputs must name at least one output; received none", field="outputs")
        validated = await self._validated(model, request)
        rows = await model.batcher.submit(
            validated.encodings,
            request.outputs,
            client=request.client,
            priority=request.priority,
            timeout_s=self._max_timeout_s if request.timeout_s is None else min(request.timeout_s, self._max_timeout_s),
        )
        return EncodeResult(
            model=model.name,
            outputs=request.outputs,
            rows=tuple(rows),
            tokens=sum(encoding.real_tokens for encoding in validated.encodings),
            truncated=validated.truncated,
        )

    async def _validated(self, model: ServedModel, request: EncodeRequest) -> Validated:
        if isinstance(request.input, TokenInput):
            return validate(request.input, model.input_limits, truncate=request.truncate)
        return await self._tokenized(model, request.input, truncate=request.truncate)

    async def _tokenized(self, model: ServedModel, text: TextInput, *, truncate: bool) -> Validated:
        if model.tokenizer is None:
            raise InvalidInput(f"model {model.name} has no tokenizer: it takes token_ids, not text", field="text")
        check_count(len(text.texts), model.input_limits, "text")
        characters = _count_characters(text, model.max_text_characters)
        max_length = model.input_limits.max_sequence_length
        if characters <= INLINE_CHARACTERS:
            tokenized = model.tokenizer.encode(text.texts, max_length=max_length, truncate=truncate)
        else:
            tokenized = await asyncio.to_thread(
                model.tokenizer.encode, text.texts, max_length=max_length, truncate=truncate
            )
        _check_lengths(tokenized.token_ids, max_length)
        tokens = TokenInput(tokenized.token_ids, tokenized.segment_ids)
        return Validated(validate(tokens, model.input_limits, truncate=False).encodings, tuple(tokenized.truncated))


def _count_characters(text: TextInput, longest: int) -> int:
    """Characters over all texts.

    Raises:
        InvalidInput: One of them has more than `longest`.
    """
    total = 0
    for index, item in enumerate(text.texts):
        characters = len(item) if isinstance(item, str) else sum(len(part) for part in item)
        if characters > longest:
            raise InvalidInput(
                f"a text takes at most {longest} characters; received {characters}", field=f"text[{index}]"
            )
        total += characters
    return total


def _check_lengths(token_ids: Sequence[IntArray], longest: int) -> None:
    """Refuses what is too long under the name that the caller knows it by: of a text, not of the ids made of it.

    Raises:
        InvalidInput: A text has become more than `longest` ids.
    """
    for index, row in enumerate(token_ids):
        if len(row) > longest:
            raise InvalidInput(
                f"a text takes at most {longest} ids unless truncate is true; received {len(row)}",
                field=f"text[{index}]",
            )
