"""The one door for every transport: validate, submit, collect.

A transport turns its own message into an `EncodeRequest`, awaits `InferenceService.encode`, and turns the
`EncodeResult` or the `ServiceError` back. Nothing here knows which transport that was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import IntEnum

from electra_serve.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelNotReady,
    Overloaded,
    PayloadTooLarge,
    ServiceError,
    ShuttingDown,
)
from electra_serve.observability.tracing import RequestSpan
from electra_serve.presets.tokenizers.loader import NoTokenizer
from electra_serve.serving.model_info import ModelInfo
from electra_serve.serving.registry import ModelRegistry
from electra_serve.serving.served_model import ServedModel
from electra_serve.serving.tokenization import TextEncoder
from electra_serve.serving.transit_budget import Transit
from electra_serve.serving.validation import Validated, check_count, validate
from electra_serve.tensors import (
    DEFAULT_OUTPUTS,
    Encoding,
    Output,
    Outputs,
    RowOutput,
    TextInput,
    TokenInput,
    Truncation,
)


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
        truncation: The rule for what is longer than the model takes.
        client: Whose turn it is, for fairness between clients; any stable string.
        priority: Which requests go first.
        timeout_s: Seconds from now after which the caller no longer wants the answer; None: no limit.
        max_values: Most numbers that the answer may hold; None: no limit.
        span: The request's, where requests are traced.
        transit: The request's share of the transit budget; None: not budgeted.
    """

    input: TokenInput | TextInput
    model: str | None = None
    outputs: Outputs = DEFAULT_OUTPUTS
    truncation: Truncation = Truncation.NONE
    client: str = ""
    priority: Priority = Priority.NORMAL
    timeout_s: float | None = None
    max_values: int | None = None
    span: RequestSpan | None = None
    transit: Transit | None = None


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

    @property
    def values(self) -> int:
        """Numbers in all rows."""
        return sum(row.size(output) for row in self.rows for output in self.outputs)


class InferenceService:
    """Encodes requests with the models of a registry.

    Args:
        registry: The models.
        texts: Makes ids of texts.
    """

    def __init__(self, registry: ModelRegistry, texts: TextEncoder) -> None:
        self._registry = registry
        self._texts = texts

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

    def check_room(self, client: str) -> None:
        """Refuses what any request of this client would be refused for, before it is read.

        Raises:
            Overloaded: No model has room for one more sequence.
            ModelNotReady: No model's engine will come back.
            ShuttingDown: Nothing new is admitted.
        """
        refusal: ServiceError | None = None
        for batcher in self._registry.batchers:
            try:
                batcher.check_room(1, client)
            except (Overloaded, ShuttingDown, ModelNotReady) as error:
                refusal = error
            else:
                return
        if refusal is not None:
            raise refusal

    async def encode(self, request: EncodeRequest) -> EncodeResult:
        """Computes the outputs that `request` asks for.

        Cancelling the call takes what still waits out of the queue.

        Raises:
            ModelNotFound: No model has that name, or none was named where several are served.
            ModelNotReady: It is loading, unloading or failed.
            InvalidInput: The ids or texts are not what the model takes.
            PayloadTooLarge: Too many sequences, or an answer larger than its transport sends.
            Overloaded: The queue is full, or the client's share of it, or the turn would come after the deadline.
            ShuttingDown: Nothing new is admitted.
            DeadlineExceeded: The deadline passed first.
            EngineFailure: The engine fails on one of the sequences.
        """
        model = self._registry.ready_model(request.model)
        with model.requests:
            return await self._encode(model, request)

    async def _encode(self, model: ServedModel, request: EncodeRequest) -> EncodeResult:
        if not request.outputs:
            raise InvalidInput("outputs must name at least one output; received none", field="outputs")
        now = asyncio.get_running_loop().time
        longest_s = model.max_timeout_s
        deadline = now() + (longest_s if request.timeout_s is None else min(request.timeout_s, longest_s))
        with ExitStack() as room:
            validated = await self._validated(model, request, deadline, room)
            values = _response_values(request, validated.encodings, model.hidden_dim)
            if request.transit is not None:
                await request.transit.reserve_response(values)
        rows = await model.batcher.submit(
            validated.encodings,
            request.outputs,
            client=request.client,
            priority=request.priority,
            timeout_s=max(deadline - now(), 0.0),
            span=request.span,
        )
        return EncodeResult(
            model=model.name,
            outputs=request.outputs,
            rows=tuple(rows),
            tokens=sum(encoding.real_tokens for encoding in validated.encodings),
            truncated=validated.truncated,
        )

    async def _validated(
        self, model: ServedModel, request: EncodeRequest, deadline: float, room: ExitStack
    ) -> Validated:
        """Returns the request's sequences; `room` keeps room for those of texts in the queue."""
        if isinstance(request.input, TokenInput):
            return validate(request.input, model.input_limits, request.truncation)
        if isinstance(model.tokenizer, NoTokenizer):
            reason = model.tokenizer.reason
            raise InvalidInput(f"model {model.name} takes token_ids, not text: {reason}", field="text")
        check_count(len(request.input.texts), model.input_limits, "text")
        with _retry_later(self._texts.work_s):
            room.enter_context(model.batcher.reserve(len(request.input.texts), request.client))
        try:
            async with asyncio.timeout_at(deadline):
                with _retry_later(model.batcher.queued_work_s):
                    return await self._texts.encode(
                        request.input,
                        model.tokenizer,
                        model.input_limits,
                        model.text_limits,
                        request.truncation,
                        client=request.client,
                        priority=request.priority,
                        timeout_s=max(deadline - asyncio.get_running_loop().time(), 0.0),
                    )
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the texts were tokenized") from error


@contextmanager
def _retry_later(seconds: float) -> Iterator[None]:
    """Adds `seconds` to the wait of rejections: a text waits for the tokenizer, and then for the engine."""
    try:
        yield
    except Overloaded as error:
        raise Overloaded(
            error.message, field=error.field, retry_after_s=(error.retry_after_s or 0.0) + seconds
        ) from error


def _response_values(request: EncodeRequest, encodings: Sequence[Encoding], hidden_dim: int) -> int:
    """Returns how many numbers the response will hold.

    Raises:
        PayloadTooLarge: It would hold more than `request.max_values` numbers.
    """
    per_position = Output.SEQUENCE in request.outputs
    vectors = len(encodings) * (len(request.outputs) - per_position)
    values = (vectors + per_position * sum(map(len, encodings))) * hidden_dim
    if request.max_values is not None and values > request.max_values:
        raise PayloadTooLarge(
            f"an answer takes at most {request.max_values} numbers; this one would have {values}: "
            "ask for fewer sequences or outputs"
        )
    return values
